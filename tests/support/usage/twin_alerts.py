"""Random alerts of a story of two organizations."""

from random import Random

from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    filter_pb2,
    scope_pb2,
    threshold_pb2,
)
from tests.support.usage.alerts import (
    ALL_CUSTOMERS,
    BOTH,
    on_customer,
    on_customer_plan,
    on_plan,
    on_subscription,
)

CUSTOMERS = ("acme", "beta", "gamma")
SCOPES = (
    *[ALL_CUSTOMERS] * 4,
    on_plan("gold"),
    on_customer("acme"),
    on_customer("beta"),
    on_customer_plan("acme", "gold"),
)


def random_thresholds(random: Random) -> list[threshold_pb2.Threshold]:
    """One or two levels, perhaps with other options."""
    choice = random.choice
    levels = random.sample((4, 8, 12, 18, 25, 40, 60, 90, 150, 250), choice((1, 1, 2)))
    found = [threshold_pb2.Threshold(value=str(one), notify_on=BOTH) for one in levels]
    match choice(("plain", "plain", "hysteresis", "recurring", "percent")):
        case "hysteresis":
            found[0].resolve_value = str(min(levels) - 2)
        case "recurring":
            found.append(threshold_pb2.Threshold(recurring_step=str(choice((2, 7))), notify_on=BOTH))
        case "percent":
            found.append(threshold_pb2.Threshold(percent_of_limit=str(choice((50, 90))), notify_on=BOTH))
    return found


def random_creation(random: Random) -> alert_service_pb2.CreateAlertRequest:
    """The creation of an alert on usage or cost."""
    choice = random.choice
    alert = alert_pb2.Alert(display_name="usage", scope=choice(SCOPES), thresholds=random_thresholds(random))
    metric = choice(("calls", "calls", "calls", "calls", "jobs", "jobs", "peak", "last", "tokens"))
    groups = [filter_pb2.GroupSelector(key="team", value=choice((None, "red")))]
    match choice(("usage", "usage", "usage", "usage", "groups", "spend", "contract", "subscription")):
        case "usage":
            alert.usage_threshold_reached.metric_id = metric
        case "groups":
            alert.usage_threshold_reached.metric_id = metric
            alert.usage_threshold_reached.group_values.extend(groups)
            if groups[0].value:
                alert.scope.CopyFrom(ALL_CUSTOMERS)
        case "spend":
            alert.spend_threshold_reached.currency = "USD"
        case "contract":
            alert.spend_threshold_reached.CopyFrom(
                condition_pb2.SpendThresholdReachedCondition(
                    currency="USD",
                    custom_field_filters=[
                        filter_pb2.CustomFieldFilter(
                            entity=filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT, key="region", value="eu"
                        )
                    ],
                )
            )
            del alert.thresholds[1:]
        case "subscription":
            alert.usage_exceeded.metric_id = metric
            subscription = on_subscription(choice(("main", "side")), choice(CUSTOMERS))
            scope: scope_pb2.AlertScope = choice((subscription, subscription, on_plan("gold")))
            alert.scope.CopyFrom(scope)
    return alert_service_pb2.CreateAlertRequest(alert=alert, evaluate_on_create=choice((None, True, False)))
