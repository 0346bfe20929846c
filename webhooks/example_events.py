"""Examples of every type of event: the bodies that SendTestEvent sends, made by what makes the real ones."""

import json
import random
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection
from evaluator.exclusions import MAX_GROUPS
from evaluator.gauges import EVER, Gauge, Measure
from evaluator.notification_json import format_time
from evaluator.notifications import DISABLED_TYPE, EVENT_TYPES, REACHED_TYPE, DisabledNotification, Notification
from evaluator.periods import Period
from evaluator.thresholds import Severity, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Cause, Transition
from webhooks.health import DISABLE_AFTER, Finding, Health, Verdict
from webhooks.operator_events import EvaluationFailure, OperatorEvent, OperatorEventType, body_of, notice_of

TEST_TYPE = "endpoint.test"
TEST_ID_PREFIX = "tst_"
EXAMPLE_TYPES = (*EVENT_TYPES, *OperatorEventType, TEST_TYPE)

# Whom the examples are about, other than endpoint.test: nobody. A receiver that looks them up finds nothing.
_NO_ONE = "testtesttesttesttesttestte"
_CUSTOMER = "test-customer"
_EVENT = "test-event"
_DELAY = timedelta(seconds=2)  # from the usage to the evaluation


def body_of_test(event_id: str, event_type: str, endpoint_id: str, now: datetime) -> str:
    """The JSON of a test event of one of EXAMPLE_TYPES: as the schema of its type says, and data.test is true.

    `endpoint_id` is the endpoint that it is sent to, which only `endpoint.test` is about.
    """
    if event_type == TEST_TYPE:
        data = {"endpoint_id": endpoint_id}
        made: dict[str, Any] = {"id": event_id, "type": TEST_TYPE, "timestamp": format_time(now), "data": data}
    elif event_type in EVENT_TYPES:
        made = json.loads(_of_an_alert(event_type, now).body())
    else:
        made = json.loads(_of_an_endpoint(event_id, OperatorEventType(event_type), now))
    made["id"] = event_id
    made["data"] = {"test": True, **made["data"]}
    return json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def _of_an_alert(event_type: str, now: datetime) -> Notification | DisabledNotification:
    usage = Gauge(_CUSTOMER, None, Measure(metric_id="tokens"), (("region", "eu"),), _month(now))
    cause = Cause(_EVENT, now - _DELAY)
    line = Threshold(Decimal(800), code="80 %", severity=Severity.WARNING)
    rule = _rule(ConditionType.USAGE_THRESHOLD_REACHED, usage.measure, line, now)
    if event_type == DISABLED_TYPE:
        return DisabledNotification(
            "", rule, replace(usage, group=(("region", "r-5001"),)), MAX_GROUPS, 1, now, cause
        )
    if event_type == REACHED_TYPE:
        moved = _crossed(TransitionKind.REACHED, line, Decimal(790), Decimal(810), cause)
        return Notification("", rule, usage, 1, now, False, (moved,))
    # A grant was put, so that what remains is above the line again.
    commits = BalanceSelection((BalanceKind.COMMIT,), BalanceReading.REMAINING)
    remaining = Gauge(_CUSTOMER, None, Measure(currency="USD", balances=commits), (), EVER)
    line = Threshold(Decimal(20), severity=Severity.CRITICAL)
    rule = _rule(ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED, remaining.measure, line, now)
    moved = _crossed(TransitionKind.RESOLVED, line, Decimal("12.5"), Decimal("512.5"), None)
    return Notification("", rule, remaining, 2, now, False, (moved,))


def _rule(condition: ConditionType, measure: Measure, line: Threshold, now: datetime) -> AlertRule:
    return AlertRule(
        alert_id=f"alt_{_NO_ONE}",
        name="Test of a webhook endpoint",
        version=1,
        condition_type=condition,
        scope=Scope(ScopeKind.CUSTOMER, customer_id=_CUSTOMER),
        measure=measure,
        groups=(),
        thresholds=ThresholdSet.of((line,), condition.direction),
        evaluate_on_create=True,
        changed_epoch=1,
        watching_epoch=1,
        watching_time=now,
    )


def _crossed(
    kind: TransitionKind, line: Threshold, previous: Decimal, value: Decimal, cause: Cause | None
) -> Transition:
    return Transition(
        kind=kind,
        threshold=line,
        level=line.value,
        previous_value=previous,
        value=value,
        cause=cause,
        notified=True,
        furthest=True,
    )


def _month(now: datetime) -> Period:
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period(start, (start + timedelta(days=32)).replace(day=1))


def _of_an_endpoint(event_id: str, event_type: OperatorEventType, now: datetime) -> str:
    """An operator event about an endpoint that there is not: its health is led to where it tells of that type.

    Of an evaluation that failed: about an alert that there is not.
    """
    if event_type is OperatorEventType.EVALUATION_FAILED:
        failure = EvaluationFailure(f"alt_{_NO_ONE}", _CUSTOMER, _EVENT)
        return body_of(event_id, OperatorEvent(0, "", notice_of(failure)), now)
    half = Health(max_in_flight=4, failing_since=now - DISABLE_AFTER / 2, failure_count=21)
    failed = Finding(Verdict.FAILED)
    health, finding = {
        OperatorEventType.ENDPOINT_FAILING: (half, failed),
        OperatorEventType.ENDPOINT_DISABLED: (replace(half, failing_since=now - DISABLE_AFTER), failed),
        OperatorEventType.ENDPOINT_RECOVERED: (replace(half, warned_percent=50), Finding(Verdict.SUCCEEDED)),
        OperatorEventType.DELIVERY_EXHAUSTED: (half, replace(failed, exhausted=True, delivery={
            "delivery_id": f"whd_{_NO_ONE}", "notification_id": f"ntf_{_NO_ONE}", "attempt_count": 11,
        })),
    }[event_type]  # fmt: skip
    _, told = health.after(finding, now, random.Random(0))
    notice = next(notice for notice in told if notice.event_type is event_type)
    return body_of(event_id, OperatorEvent(0, f"whe_{_NO_ONE}", notice), now)
