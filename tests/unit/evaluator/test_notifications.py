"""Notifications: their ids, their types and their bodies."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.gauges import Gauge, Measure
from evaluator.notification_json import format_time
from evaluator.notifications import MAX_TRANSITIONS, Notification
from evaluator.periods import Period
from evaluator.thresholds import Direction, Severity, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Cause, Transition

NOW = datetime(2026, 3, 15, 12, 30, 0, 5, tzinfo=UTC)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
LINE = Threshold(Decimal("10.50"), "block", Severity.CRITICAL, resolve_value=Decimal("8"))
RULE = AlertRule(
    alert_id="alt_1",
    display_name="Größe",
    version=3,
    condition_type=ConditionType.COST_EXCEEDED,
    scope=Scope(ScopeKind.ALL_CUSTOMERS),
    measure=Measure(currency="USD", per_subscription=True),
    groups=(),
    thresholds=ThresholdSet.of((LINE,), Direction.RISING),
    evaluate_on_create=True,
    changed_epoch=1,
    watching_epoch=1,
    watching_time=NOW,
)
GAUGE = Gauge("acme", "pro", RULE.measure, (("region", "eu"),), MARCH)


def transition(
    kind: TransitionKind = TransitionKind.REACHED, value: str = "12", cause: Cause | None = None
) -> Transition:
    return Transition(kind, LINE, LINE.value, Decimal("9.999999999999999999"), Decimal(value), cause, True, True)


def notification(*transitions: Transition) -> Notification:
    return Notification("default", RULE, GAUGE, 1, NOW, False, transitions or (transition(),))


def test_a_notification_id_differs_with_each_part_of_its_identity() -> None:
    base = notification()
    others = [
        replace(base, organization="other"),
        replace(base, sequence=2),
        replace(base, rule=replace(RULE, alert_id="alt_2")),
        replace(base, gauge=replace(GAUGE, customer_id="beta")),
        replace(base, gauge=replace(GAUGE, period=Period(MARCH.start, NOW))),
    ]
    ids = {one.notification_id for one in [base, *others]}
    assert len(ids) == len(others) + 1
    assert replace(base, ingest_time=NOW + timedelta(1), late=True).notification_id == base.notification_id
    assert base.notification_id == "ntf_" + base.notification_id[4:].lower()
    assert len(base.notification_id) == 30


@pytest.mark.parametrize("kinds", [kinds for n in (1, 2, 3) for kinds in itertools.product(TransitionKind, repeat=n)])
def test_a_notification_is_of_type_reached_when_any_transition_is(kinds: tuple[TransitionKind, ...]) -> None:
    expected = "alert.reached" if TransitionKind.REACHED in kinds else "alert.resolved"
    assert notification(*map(transition, kinds)).event_type == expected


def test_the_body_is_json_with_texts_for_amounts_and_times() -> None:
    cause = Cause("e-1", datetime(2026, 3, 15, 13, tzinfo=timezone(timedelta(hours=1))))
    text = notification(
        transition(cause=cause), transition(TransitionKind.RESOLVED, "1000000000000000000000.10")
    ).body()
    body = json.loads(text, parse_float=lambda number: pytest.fail(f"{number} is a float"))
    assert "Größe" in text
    assert text == json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    data = body["data"]
    assert body["id"] == notification().notification_id
    assert body["timestamp"] == data["ingest_time"] == "2026-03-15T12:30:00.000005Z"
    assert (data["previous_value"], data["value"]) == ("9.999999999999999999", "1000000000000000000000.1")
    assert (data["alert_display_name"], data["alert_version"], data["condition"]) == ("Größe", 3, "cost_exceeded")
    assert data["gauge"] == {
        "customer_id": "acme",
        "subscription_id": "pro",
        "currency": "USD",
        "group": [{"key": "region", "value": "eu"}],
        "period": {"start_time": "2026-03-01T00:00:00.000000Z", "end_time": "2026-04-01T00:00:00.000000Z"},
    }
    first, second = data["transitions"]
    assert first["threshold"] == {"code": "block", "value": "10.5", "severity": "CRITICAL", "resolve_value": "8"}
    assert (first["event_id"], first["event_time"]) == ("e-1", "2026-03-15T12:00:00.000000Z")
    assert "event_id" not in second
    assert "omitted" not in data


def test_a_recurring_threshold_shows_its_step_and_a_gauge_of_usage_its_metric() -> None:
    step = Threshold(recurring_step=Decimal("0.50"))
    recurring = replace(transition(), threshold=step, level=Decimal("1.50"))
    gauge = Gauge("acme", None, Measure(metric_id="calls"), (), MARCH)
    data = json.loads(replace(notification(recurring), gauge=gauge).body())["data"]
    assert data["transitions"][0]["threshold"] == {"recurring_step": "0.5"}
    assert data["transitions"][0]["level"] == "1.5"
    assert data["gauge"]["metric_id"] == "calls"
    assert "subscription_id" not in data["gauge"]
    assert "currency" not in data["gauge"]


@pytest.mark.parametrize("number", [MAX_TRANSITIONS, MAX_TRANSITIONS + 1, 3 * MAX_TRANSITIONS])
def test_a_notification_shows_the_last_of_many_transitions(number: int) -> None:
    many = [transition(value=str(place)) for place in range(number)]
    data = json.loads(notification(*many).body())["data"]
    assert [one["value"] for one in data["transitions"]] == [str(place) for place in range(number)][-MAX_TRANSITIONS:]
    assert data.get("omitted", 0) == number - MAX_TRANSITIONS
    assert data["value"] == str(number - 1)


@pytest.mark.parametrize("code", ["", "c" * 1_000], ids=["all that may be shown", "what fits"])
def test_the_furthest_of_the_shown_transitions_is_marked(code: str) -> None:
    one = replace(transition(), threshold=Threshold(code=code), furthest=False)
    many = [replace(one, level=Decimal(60 - place), furthest=place == 0) for place in range(60)]
    data = json.loads(notification(*many).body())["data"]
    shown = data["transitions"]
    assert data["omitted"] == 60 - len(shown) >= 10
    assert [one["furthest"] for one in shown] == [True] + [False] * (len(shown) - 1)


def test_times_are_utc_to_the_microsecond() -> None:
    assert format_time(NOW.astimezone(timezone(timedelta(hours=-7)))) == "2026-03-15T12:30:00.000005Z"
    assert format_time(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000000Z"
