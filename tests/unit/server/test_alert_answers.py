"""Alerts, gauges and customers as answers show them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf import text_format

from evaluator.alerts import ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.definitions import AlertDefinition, Condition, DefinitionState
from evaluator.gauges import Gauge, Group, Measure
from evaluator.periods import Period
from evaluator.thresholds import Severity, Threshold, TransitionKind
from evaluator.transitions import AlertState, Reached
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    customer_alert_pb2,
    threshold_pb2,
)
from runtime.turns import Slices
from server.calls.validation import Violations, to_timestamp
from server.mapping.alerts import alert_message, read_new_alert
from server.mapping.gauges import (
    MAX_GAUGES,
    ORDERED_AT_ONCE,
    customer_alert_message,
    first_in_order,
    gauge_message,
    position_of,
)
from store.views.customer_alerts import CustomerAlert, GaugeState

NOW = datetime(2026, 3, 15, 12, 0, 0, 123456, tzinfo=UTC)
PERIOD = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))

DEFINITION = AlertDefinition(
    alert_id="alt_1",
    display_name="spend",
    state=DefinitionState.ACTIVE,
    scope=Scope(ScopeKind.ALL_CUSTOMERS),
    condition=Condition(ConditionType.SPEND_THRESHOLD_REACHED, currency="USD", groups=(GroupSelector("model"),)),
    thresholds=(Threshold(Decimal("10.50")), Threshold(recurring_step=Decimal(5))),
    uniqueness_key=None,
    uniqueness_key_held=False,
    natural_key=None,
    evaluate_on_create=True,
    version=1,
    changed_epoch=1,
    watching_epoch=1,
    watching_time=NOW,
    backfill_after=None,
    create_time=NOW,
    update_time=NOW + timedelta(seconds=1),
)

CUSTOMERS = 'customer { customer_id: "c" }'
SUBSCRIPTION = 'subscription { customer_id: "c" subscription_id: "s" }'
PLAN = 'plan { plan_id: "p" }'


@pytest.mark.parametrize(
    ("scope", "condition"),
    [
        ("all_customers {}", 'spend_threshold_reached { currency: "EUR" group_values { key: "b" } }'),
        (PLAN, 'spend_threshold_reached { currency: "EUR" group_values { key: "a" value: "" } }'),
        (CUSTOMERS, 'usage_threshold_reached { metric_id: "m" group_values { key: "a" value: "x" } }'),
        (SUBSCRIPTION, 'usage_exceeded { metric_id: "m" }'),
        ('customer_plan { customer_id: "c" plan_id: "p" }', 'usage_exceeded { metric_id: "m" }'),
        (PLAN, 'cost_exceeded { currency: "USD" grouping_keys: ["z", "a"] }'),
        (SUBSCRIPTION, 'spend_exceeded { currency: "credits" }'),
        (
            SUBSCRIPTION,
            'spend_exceeded { currency: "USD" price_filters { field: PRICE_FIELD_ITEM_ID'
            ' operator: FILTER_OPERATOR_INCLUDES values: ["a", "b"] } }',
        ),
        (
            PLAN,
            'cost_exceeded { currency: "USD" grouping_keys: ["z", "a"] threshold_overrides {'
            ' group_values { key: "a" value: "1" } group_values { key: "z" value: "2" }'
            ' thresholds { value: "3" code: "c" notify_on: TRANSITION_KIND_REACHED } }'
            ' threshold_overrides { group_values { key: "z" value: "" } } }',
        ),
    ],
)
def test_an_alert_is_shown_as_requested(scope: str, condition: str) -> None:
    sent = text_format.Parse(
        f"""
        display_name: "n" uniqueness_key: "k" scope {{ {scope} }} {condition}
        thresholds {{ value: "20" code: "c" severity: SEVERITY_INFO resolve_value: "-1"
                      notify_on: [TRANSITION_KIND_REACHED, TRANSITION_KIND_RESOLVED] }}
        thresholds {{ recurring_step: "0.5" notify_on: TRANSITION_KIND_REACHED }}
        thresholds {{ value: "10" notify_on: TRANSITION_KIND_RESOLVED }}
        """,
        alert_pb2.Alert(),
    )
    new = read_new_alert(Violations(), alert_service_pb2.CreateAlertRequest(alert=sent))
    stored = replace(
        DEFINITION,
        display_name=new.display_name,
        scope=new.scope,
        condition=new.condition,
        thresholds=new.thresholds,
        uniqueness_key=new.uniqueness_key,
        uniqueness_key_held=True,
    )
    output_only = alert_pb2.Alert(
        alert_id="alt_1",
        state=alert_pb2.ALERT_STATE_ACTIVE,
        evaluation_status=alert_pb2.EVALUATION_STATUS_DONE,
        create_time=to_timestamp(DEFINITION.create_time),
        update_time=to_timestamp(DEFINITION.update_time),
        etag="1",
        version=1,
    )
    sent.MergeFrom(output_only)
    assert alert_message(stored) == sent


def test_an_alert_shows_its_output_only_fields() -> None:
    shown = alert_message(replace(DEFINITION, backfill_after="", version=4))
    assert shown.state == alert_pb2.ALERT_STATE_ACTIVE
    assert shown.evaluation_status == alert_pb2.EVALUATION_STATUS_EVALUATING
    assert (shown.version, shown.etag, shown.uniqueness_key_released) == (4, "4", False)
    assert shown.create_time.ToDatetime(UTC) == NOW
    assert not shown.HasField("archive_time")


def test_an_archived_alert_shows_whether_its_key_is_released() -> None:
    archived = replace(
        DEFINITION, state=DefinitionState.ARCHIVED, archive_time=NOW, uniqueness_key="k", uniqueness_key_held=True
    )
    shown = alert_message(archived)
    assert (shown.state, shown.uniqueness_key_released) == (alert_pb2.ALERT_STATE_ARCHIVED, False)
    assert shown.archive_time.ToDatetime(UTC) == NOW
    assert alert_message(replace(archived, uniqueness_key_held=False)).uniqueness_key_released
    assert not alert_message(
        replace(archived, uniqueness_key=None, uniqueness_key_held=False)
    ).uniqueness_key_released


def test_a_gauge_shows_what_it_measures_and_its_exact_value() -> None:
    measure = Measure(currency="USD", per_subscription=True)
    shown = gauge_message(Gauge("acme", "pro", measure, (("model", "large"),), PERIOD), Decimal("1E+3"))
    assert (shown.customer_id, shown.subscription_id, shown.value) == ("acme", "pro", "1000")
    assert (shown.WhichOneof("measure"), shown.cost.currency) == ("cost", "USD")
    assert [(pair.key, pair.value) for pair in shown.group] == [("model", "large")]
    assert shown.billing_period.start_time.ToDatetime(UTC) == PERIOD.start
    assert shown.billing_period.end_time.ToDatetime(UTC) == PERIOD.end


def test_a_usage_gauge_names_its_metric() -> None:
    shown = gauge_message(Gauge("acme", None, Measure(metric_id="calls"), (), PERIOD), Decimal("0.10"))
    assert (shown.WhichOneof("measure"), shown.usage.metric_id, shown.value) == ("usage", "calls", "0.1")
    assert shown.subscription_id == ""


def gauge_state(group: Group, reached: dict[str, Reached], reason: str | None = "USAGE") -> GaugeState:
    gauge = Gauge("acme", None, Measure(currency="USD"), group, PERIOD)
    return GaugeState(gauge, Decimal(26), AlertState(reached), 3, NOW, reason)


def shown_of(
    gauges: Sequence[GaugeState], definition: AlertDefinition = DEFINITION
) -> customer_alert_pb2.CustomerAlert:
    found = CustomerAlert(
        definition, "acme", tuple(gauges), no_data=definition.state is DefinitionState.ACTIVE and not gauges
    )
    return asyncio.run(customer_alert_message(found, Slices(1)))


def test_a_gauge_shows_each_threshold_in_the_alerts_order() -> None:
    recurrences = Reached(Decimal("25.50"), NOW, silent=True, recurrences=3, silent_recurrences=3)
    definition = replace(DEFINITION, thresholds=tuple(reversed(DEFINITION.thresholds)))
    shown = shown_of([gauge_state((("model", "large"),), {"every:5": recurrences})], definition)
    assert shown.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    (state,) = shown.gauges
    assert (state.sequence, state.change_reason) == (3, customer_alert_pb2.CHANGE_REASON_USAGE)
    assert state.change_time.ToDatetime(UTC) == NOW
    recurring, fixed = state.thresholds
    assert recurring.threshold == threshold_pb2.Threshold(
        recurring_step="5", notify_on=[threshold_pb2.TRANSITION_KIND_REACHED]
    )
    assert (recurring.in_alarm, recurring.level, recurring.silent) == (True, "25.5", True)
    assert recurring.reached_time.ToDatetime(UTC) == NOW
    assert (fixed.threshold.value, fixed.in_alarm, fixed.level) == ("10.5", False, "")
    assert not fixed.HasField("reached_time")


def test_a_state_changed_by_an_edit_has_the_reason_evaluation() -> None:
    (state,) = shown_of([gauge_state((), {}, reason="DEFINITION")]).gauges
    assert state.change_reason == customer_alert_pb2.CHANGE_REASON_EVALUATION


def test_a_customer_without_a_gauge_has_no_data() -> None:
    shown = shown_of([])
    assert (shown.no_data, shown.status) == (True, customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK)
    assert not shown_of([gauge_state((), {})]).no_data


def test_an_archived_alert_has_no_status() -> None:
    shown = shown_of([], replace(DEFINITION, state=DefinitionState.ARCHIVED, archive_time=NOW))
    assert (shown.status, shown.no_data) == (customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED, False)


@pytest.mark.parametrize(
    ("backfill_after", "status"),
    [
        ("", customer_alert_pb2.CUSTOMER_ALERT_STATUS_EVALUATING),
        ("acm", customer_alert_pb2.CUSTOMER_ALERT_STATUS_EVALUATING),
        ("acme", customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM),
        ("b", customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM),
        (None, customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM),
    ],
)
def test_an_alert_is_evaluating_until_its_backfill_has_passed_the_customer(
    backfill_after: str | None, status: customer_alert_pb2.CustomerAlertStatus.ValueType
) -> None:
    reached = {"10.5": Reached(Decimal("10.5"), NOW)}
    assert shown_of([gauge_state((), reached)], replace(DEFINITION, backfill_after=backfill_after)).status == status


def test_gauges_in_alarm_are_first_of_the_hundred_that_are_shown() -> None:
    gauges = [
        gauge_state((("model", f"{number:03}"),), {} if number < 150 else {"10.5": Reached(Decimal("10.5"), NOW)})
        for number in range(151)
    ]
    shown = shown_of(gauges)
    assert (len(shown.gauges), shown.gauges_truncated) == (MAX_GAUGES, True)
    assert [state.gauge.group[0].value for state in shown.gauges[:3]] == ["150", "000", "001"]
    assert not shown_of(gauges[:100]).gauges_truncated


def test_default_values_are_shown_explicitly() -> None:
    shown = alert_message(replace(DEFINITION, thresholds=(Threshold(Decimal(1), severity=Severity.CRITICAL),)))
    assert list(shown.thresholds[0].notify_on) == [threshold_pb2.TRANSITION_KIND_REACHED]
    assert shown.thresholds[0].severity == threshold_pb2.SEVERITY_CRITICAL
    both = Threshold(Decimal(1), notify_on=frozenset(TransitionKind))
    assert len(alert_message(replace(DEFINITION, thresholds=(both,))).thresholds[0].notify_on) == 2


@pytest.mark.parametrize("count", [1, 100, 3 * ORDERED_AT_ONCE])
@pytest.mark.parametrize("number", [0, 1, ORDERED_AT_ONCE, 3 * ORDERED_AT_ONCE + 1])
async def test_gauges_are_put_in_order_in_slices_as_all_at_once(number: int, count: int) -> None:
    gauges = [
        gauge_state((("model", str(index * 7919 % number)),), {"10.5": Reached(Decimal(1), NOW)} if index % 3 else {})
        for index in range(number)
    ]
    ordered = sorted(gauges, key=position_of)
    assert await first_in_order(gauges, count, Slices(1, 0.0)) == ordered[:count]
    for after in ordered[:2]:
        following = [one for one in ordered if position_of(one) > position_of(after)]
        assert await first_in_order(gauges, count, Slices(1, 0.0), position_of(after)) == following[:count]
