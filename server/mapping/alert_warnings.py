"""Warnings: what an alert names that its organization does not know yet."""

from collections.abc import Iterator, Sequence

from evaluator.alerts import Scope
from evaluator.definitions import Condition
from evaluator.thresholds import Threshold
from generated.tidemark.v1 import alert_pb2
from store.known_ids import Ids

_LATER = "; the alert is created, and evaluated as soon as it is known"


def named_ids(scope: Scope, condition: Condition, thresholds: Sequence[Threshold]) -> Ids:
    """The ids that a definition names, as far as it can be found out whether they are known."""
    limited = any(threshold.percent_of_limit is not None for threshold in thresholds)
    return Ids(
        metric_id=condition.metric_id,
        plan_id=scope.plan_id,
        customer_id=scope.customer_id,
        subscription_id=scope.subscription_id,
        limited_metric_id=condition.metric_id if limited else None,
        limited_currency=condition.currency if limited and condition.metric_id is None else None,
    )


def warnings(
    scope: Scope, condition: Condition, thresholds: Sequence[Threshold], unknown: Ids
) -> list[alert_pb2.AlertWarning]:
    """A warning for each id that is not known, in the order of the fields of an alert."""
    return list(_warnings(scope, condition, thresholds, unknown))


def _warnings(
    scope: Scope, condition: Condition, thresholds: Sequence[Threshold], unknown: Ids
) -> Iterator[alert_pb2.AlertWarning]:
    target = f"alert.scope.{scope.kind.lower()}"
    if unknown.plan_id is not None:
        yield alert_pb2.AlertWarning(
            reason=alert_pb2.ALERT_WARNING_REASON_PLAN_UNKNOWN,
            field=f"{target}.plan_id",
            unknown_id=unknown.plan_id,
            message=f"no plan {unknown.plan_id!r} was put, and no customer or subscription is on it: check the"
            " spelling, or put the plan or its customers" + _LATER,
        )
    if unknown.customer_id is not None:
        yield alert_pb2.AlertWarning(
            reason=alert_pb2.ALERT_WARNING_REASON_CUSTOMER_UNKNOWN,
            field=f"{target}.customer_id",
            unknown_id=unknown.customer_id,
            message=f"no fact and no usage names the customer {unknown.customer_id!r}: check the spelling, or put the"
            " customer or send its usage" + _LATER,
        )
    if unknown.subscription_id is not None:
        yield alert_pb2.AlertWarning(
            reason=alert_pb2.ALERT_WARNING_REASON_SUBSCRIPTION_UNKNOWN,
            field=f"{target}.subscription_id",
            unknown_id=unknown.subscription_id,
            message=f"no fact and no usage names the subscription {unknown.subscription_id!r} of the customer"
            f" {scope.customer_id!r}: check the spelling, or put the subscription or send its usage" + _LATER,
        )
    if unknown.metric_id is not None:
        yield alert_pb2.AlertWarning(
            reason=alert_pb2.ALERT_WARNING_REASON_METRIC_UNKNOWN,
            field=f"alert.{condition.condition_type}.metric_id",
            unknown_id=unknown.metric_id,
            message=f"the metric {unknown.metric_id!r} was not put, and no usage names it: check the spelling, or put"
            " the metric or send its usage" + _LATER,
        )
    unlimited = unknown.limited_metric_id or unknown.limited_currency
    if unlimited is not None:
        place = next(index for index, one in enumerate(thresholds) if one.percent_of_limit is not None)
        what = "metric" if unknown.limited_metric_id else "currency"
        yield alert_pb2.AlertWarning(
            reason=alert_pb2.ALERT_WARNING_REASON_LIMIT_UNKNOWN,
            field=f"alert.thresholds[{place}].percent_of_limit",
            unknown_id=unlimited,
            message=f"there is no limit of the {what} {unlimited!r}, for any customer or plan: put one, or give the"
            " threshold a value; until then it is not reached",
        )
