"""A body stays within its size limit: the last transitions are shown, and the others are counted."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.gauges import Gauge, Measure
from evaluator.notifications import MAX_BODY_BYTES, MAX_TRANSITIONS, Notification
from evaluator.periods import Period
from evaluator.thresholds import Direction, Severity, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Cause, Transition
from server.calls.validation import MAX_CURRENCY_LENGTH
from server.mapping.conditions import MAX_SPEND_FILTER_BYTES
from server.mapping.fact_conditions import MAX_CUSTOM_FIELD_FILTERS

NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
LONG = "🜂" * 128  # the longest id, four bytes a character
NAME = "🜂" * 256


def notification(number: int, long: bool) -> Notification:
    amount = Decimal("-" + "9" * 20 + "." + "9" * 18) if long else Decimal(1)
    threshold = Threshold(amount, code=LONG if long else "", severity=Severity.CRITICAL, resolve_value=amount)
    rule = AlertRule(
        alert_id="alt_" + "a" * 26,
        display_name=NAME if long else "a",
        version=1,
        condition_type=ConditionType.USAGE_EXCEEDED,
        scope=Scope(ScopeKind.ALL_CUSTOMERS),
        measure=Measure(metric_id="m"),
        groups=(),
        thresholds=ThresholdSet(Direction.RISING, (), None),
        evaluate_on_create=True,
        changed_epoch=1,
        watching_epoch=1,
        watching_time=NOW,
    )
    group = tuple((LONG, NAME) for _ in range(3)) if long else ()
    gauge = Gauge(LONG if long else "c", LONG, Measure(metric_id=LONG), group, Period(NOW, NOW + timedelta(days=1)))
    one = Transition(
        kind=TransitionKind.REACHED,
        threshold=threshold,
        level=amount,
        previous_value=amount,
        value=amount,
        cause=Cause(LONG if long else "e", NOW),
        notified=True,
    )
    return Notification("o", rule, gauge, 1, NOW, False, tuple(replace(one, value=Decimal(i)) for i in range(number)))


@pytest.mark.parametrize("number", [1, 2, 20, MAX_TRANSITIONS, 1_000])
def test_a_body_with_the_longest_names_is_within_the_size_limit(number: int) -> None:
    text = notification(number, long=True).body()
    assert len(text.encode()) <= MAX_BODY_BYTES
    data = json.loads(text)["data"]
    shown = [int(transition["value"]) for transition in data["transitions"]]
    assert shown == list(range(number))[-len(shown) :]
    assert shown
    assert data.get("omitted", 0) + len(shown) == number
    assert data["value"] == str(number - 1)


def test_a_body_with_the_longest_filters_is_within_the_size_limit() -> None:
    """Quotes take two bytes each in JSON, and so more than any other character of one byte."""
    one = notification(1, long=True)
    size = MAX_SPEND_FILTER_BYTES // MAX_CUSTOM_FIELD_FILTERS
    fields = tuple((f"{number:02}", '"' * (size - 2)) for number in range(MAX_CUSTOM_FIELD_FILTERS))
    measure = Measure(currency="C" * MAX_CURRENCY_LENGTH, contract_fields=fields)
    text = replace(one, gauge=replace(one.gauge, subscription_id=None, measure=measure)).body()
    assert len(text.encode()) <= MAX_BODY_BYTES
    assert len(json.loads(text)["data"]["gauge"]["custom_field_filters"]) == MAX_CUSTOM_FIELD_FILTERS


def test_a_body_with_usual_names_shows_the_maximum_of_transitions() -> None:
    data = json.loads(notification(MAX_TRANSITIONS, long=False).body())["data"]
    assert len(data["transitions"]) == MAX_TRANSITIONS
    assert "omitted" not in data


def test_one_more_transition_would_exceed_the_size_limit() -> None:
    body = notification(MAX_TRANSITIONS, long=True).body()
    one_more = len(
        json.dumps(json.loads(body)["data"]["transitions"][0], ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert len(body.encode()) + one_more + 1 > MAX_BODY_BYTES - 20
