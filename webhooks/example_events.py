"""Examples of every event type: the bodies of test events, made by the code that makes the bodies of real events."""

import json
import random
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.balances import Unit
from evaluator.exclusions import MAX_GROUPS
from evaluator.gauges import Gauge
from evaluator.notification_json import format_time
from evaluator.notifications import (
    DISABLED_TYPE,
    EVENT_TYPES,
    REACHED_TYPE,
    RESOLVED_TYPE,
    DisabledNotification,
    Notification,
)
from evaluator.recharge_notifications import (
    NOTIFICATION_TYPES,
    POLICY_DISABLED_TYPE,
    RECHARGE_TYPES,
    TYPES_OF_STATES,
    PolicyDisabledNotification,
    RechargeNotification,
)
from evaluator.recharges import RECHARGE_ID_PREFIX, CancelReason, DisabledReason, RechargeState
from evaluator.thresholds import Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Transition
from webhooks.example_conditions import CUSTOMER, EVENT, condition_example, month_of
from webhooks.health import DISABLE_AFTER, Health, HealthSample, HealthSignal
from webhooks.operator_events import (
    EvaluationFailure,
    LimitRefusal,
    OperatorEvent,
    OperatorEventType,
    body_of,
    notice_of,
)

TEST_TYPE = "endpoint.test"
TEST_ID_PREFIX = "tst_"
CONDITION_EVENT_TYPES = (REACHED_TYPE, RESOLVED_TYPE)  # of which there is an example for each type of condition
EXAMPLE_TYPES = (*NOTIFICATION_TYPES, *OperatorEventType, TEST_TYPE)

# Ids of the alert, the customer and so on. They do not exist, so that a receiver cannot find them.
_EXAMPLE_ID = "testtesttesttesttesttestte"


def example_body(
    event_id: str, event_type: str, endpoint_id: str, now: datetime, condition: ConditionType | None = None
) -> str:
    """The JSON of a test event of one of EXAMPLE_TYPES. It follows the schema of its type; data.test is true.

    condition: of the alert of one of CONDITION_EVENT_TYPES; None: one of the usual types.
    `endpoint_id` is the endpoint that it is sent to; it appears in the body of an `endpoint.test` only.
    """
    if event_type == TEST_TYPE:
        data = {"endpoint_id": endpoint_id}
        made: dict[str, Any] = {"id": event_id, "type": TEST_TYPE, "timestamp": format_time(now), "data": data}
    elif event_type in EVENT_TYPES:
        made = json.loads(_alert_event(event_type, condition, now).body())
    elif event_type in RECHARGE_TYPES:
        made = json.loads(_recharge_event(event_type, now).body())
    else:
        made = json.loads(_operator_event(event_id, OperatorEventType(event_type), now))
    made["id"] = event_id
    made["data"] = {"test": True, **made["data"]}
    return json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def _alert_event(
    event_type: str, condition: ConditionType | None, now: datetime
) -> Notification | DisabledNotification:
    if event_type == DISABLED_TYPE:
        return _disabled(now)
    kind = TransitionKind.REACHED if event_type == REACHED_TYPE else TransitionKind.RESOLVED
    return _moved(kind, condition, now)


def _disabled(now: datetime) -> DisabledNotification:
    """A customer has more groups than one alert may have: the alert is disabled for the customer."""
    condition = ConditionType.USAGE_THRESHOLD_REACHED
    example = condition_example(condition, TransitionKind.REACHED, now)
    assert example.cause is not None
    rule = _rule(condition, example.gauge, example.threshold, now)
    usage = replace(example.gauge, group=(("region", "r-5001"),))
    return DisabledNotification("", rule, usage, MAX_GROUPS, 1, now, example.cause)


# The example of a type whose condition is not given.
_USUAL = {
    TransitionKind.REACHED: ConditionType.USAGE_THRESHOLD_REACHED,
    TransitionKind.RESOLVED: ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED,
}


def _moved(kind: TransitionKind, condition: ConditionType | None, now: datetime) -> Notification:
    """A gauge reaches the threshold of an alert, or comes back."""
    condition = condition or _USUAL[kind]
    example = condition_example(condition, kind, now)
    rule = _rule(condition, example.gauge, example.threshold, now)
    moved = Transition(
        kind=kind,
        threshold=example.threshold,
        level=example.threshold.value,
        previous_value=example.previous,
        value=example.value,
        cause=example.cause,
        notified=True,
        furthest=True,
    )
    return Notification("", rule, example.gauge, 1 if kind is TransitionKind.REACHED else 2, now, False, (moved,))


def _recharge_event(event_type: str, now: datetime) -> RechargeNotification | PolicyDisabledNotification:
    """A prepaid balance runs low; the recharge is not reported in time, or the card is declined again and again."""
    recharge_id, balance_id, unit = f"{RECHARGE_ID_PREFIX}{_EXAMPLE_ID}", "test-balance", Unit("USD")
    if event_type == POLICY_DISABLED_TYPE:
        return PolicyDisabledNotification(
            organization="",
            policy_id="",
            customer_id=CUSTOMER,
            balance_id=balance_id,
            unit=unit,
            reason=DisabledReason.ATTEMPTS_FAILED,
            failed_attempts=3,
            max_attempts=3,
            last_recharge_id=recharge_id,
            time=now,
        )
    state = next(state for state, name in TYPES_OF_STATES.items() if name == event_type)
    timeout = timedelta(days=7)
    requested = now if state is RechargeState.REQUESTED else now - timeout
    return RechargeNotification(
        organization="",
        recharge_id=recharge_id,
        customer_id=CUSTOMER,
        balance_id=balance_id,
        unit=unit,
        recharge_sequence=1,
        state=state,
        attempt=1,
        amount=Decimal("87.5"),
        remaining=Decimal("12.5"),
        request_time=requested,
        expire_time=requested + timeout,
        time=now,
        cancel_reason=CancelReason.POLICY_DELETED if state is RechargeState.CANCELED else None,
    )


def _rule(condition: ConditionType, gauge: Gauge, threshold: Threshold, now: datetime) -> AlertRule:
    of_subscription = gauge.subscription_id is not None
    return AlertRule(
        alert_id=f"alt_{_EXAMPLE_ID}",
        display_name="Test of a webhook endpoint",
        version=1,
        condition_type=condition,
        scope=Scope(
            ScopeKind.SUBSCRIPTION if of_subscription else ScopeKind.CUSTOMER,
            customer_id=CUSTOMER,
            subscription_id=gauge.subscription_id,
        ),
        measure=gauge.measure,
        groups=(),
        thresholds=ThresholdSet.of((threshold,), condition.direction),
        evaluate_on_create=True,
        changed_epoch=1,
        watching_epoch=1,
        watching_time=now,
    )


def _operator_event(event_id: str, event_type: OperatorEventType, now: datetime) -> str:
    """The body of an operator event.

    The notice is made by the health of an endpoint that does not exist, after an attempt that leads to the event.
    """
    if event_type is OperatorEventType.EVALUATION_FAILED:
        failure = EvaluationFailure(f"alt_{_EXAMPLE_ID}", CUSTOMER, EVENT)
        return body_of(event_id, OperatorEvent(0, "", notice_of(failure)), now)
    if event_type is OperatorEventType.LIMIT_REFUSED:
        month = month_of(now)
        refusal = LimitRefusal(
            limit_id="test-limit",
            customer_id=CUSTOMER,
            subscription_id=None,
            access={"metric_id": "tokens"},
            groups=(("region", "eu"),),
            amount="1000",
            counted="940",
            held="50",
            window="BILLING_PERIOD",
            window_start=month.start,
            window_end=month.end,
        )
        return body_of(event_id, OperatorEvent(0, "", refusal.notice), now)
    failing = Health(max_in_flight=4, failing_since=now - DISABLE_AFTER / 2, failure_count=21)
    failed = HealthSample(HealthSignal.FAILED)
    delivery: dict[str, object] = {
        "delivery_id": f"whd_{_EXAMPLE_ID}",
        "notification_id": f"ntf_{_EXAMPLE_ID}",
        "attempt_count": 11,
    }
    health, sample = {
        OperatorEventType.ENDPOINT_FAILING: (failing, failed),
        OperatorEventType.ENDPOINT_DISABLED: (replace(failing, failing_since=now - DISABLE_AFTER), failed),
        OperatorEventType.ENDPOINT_RECOVERED: (
            replace(failing, warned_percent=50),
            HealthSample(HealthSignal.SUCCEEDED),
        ),
        OperatorEventType.DELIVERY_EXHAUSTED: (failing, replace(failed, exhausted=True, delivery=delivery)),
    }[event_type]
    _, notices = health.after(sample, now, random.Random(0))
    notice = next(notice for notice in notices if notice.event_type is event_type)
    return body_of(event_id, OperatorEvent(0, f"whe_{_EXAMPLE_ID}", notice), now)
