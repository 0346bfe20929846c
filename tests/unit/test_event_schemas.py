"""The schemas of docs/events describe exactly the events that are sent."""

import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection
from evaluator.gauges import EVER, Gauge, InvoiceSelection, Measure
from evaluator.notifications import DISABLED_TYPE, EVENT_TYPES, TRANSITION_TYPES, DisabledNotification, Notification
from evaluator.periods import Period
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.thresholds import Direction, Severity, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Cause, Transition
from tests.support.schemas import EVENTS, FILES, Mismatch, check, check_body, schema
from webhooks.example_events import EXAMPLE_TYPES, TEST_TYPE, example_body
from webhooks.health import DISABLE_AFTER, Health, HealthSample, HealthSignal
from webhooks.operator_events import Notice, OperatorEvent, OperatorEventType, body_of

NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
TEST_ID = "tst_" + "a" * 26
ALERT = schema("alert")
DISABLED = schema("alert_disabled")
OPERATOR = schema("operator")

RULE = AlertRule(
    alert_id="alt_aaaaaaaaaaaaaaaaaaaaaaaaaa",
    display_name="four fifths",
    version=3,
    condition_type=ConditionType.USAGE_EXCEEDED,
    scope=Scope(ScopeKind.ALL_CUSTOMERS),
    measure=Measure(metric_id="tokens"),
    groups=(),
    thresholds=ThresholdSet(Direction.RISING, (), None),
    evaluate_on_create=True,
    changed_epoch=1,
    watching_epoch=1,
    watching_time=NOW,
)
PERIOD = Period(NOW, NOW + timedelta(days=31))
PLAIN = Threshold(Decimal(80))
FULL = Threshold(Decimal(80), code="80%", severity=Severity.CRITICAL, resolve_value=Decimal("79.5"))
PERCENT = Threshold(Decimal(80), percent_of_limit=Decimal("12.5"), resolve_percent=Decimal(10))
LADDER = Threshold(recurring_step=Decimal("0.5"))


def transition(
    threshold: Threshold, kind: TransitionKind = TransitionKind.REACHED, *, caused: bool = True
) -> Transition:
    return Transition(
        kind=kind,
        threshold=threshold,
        level=Decimal("-80"),
        previous_value=Decimal("1.5"),
        value=Decimal(100),
        cause=Cause("e-1", NOW) if caused else None,
        notified=True,
    )


def notification(gauge: Gauge, *transitions: Transition) -> Notification:
    return Notification("default", RULE, gauge, 7, NOW, False, transitions)


def notifications() -> Iterator[Notification]:
    usage = Gauge("acme", None, Measure(metric_id="tokens"), (), PERIOD)
    cost = Gauge("acme", "acme-pro", Measure(currency="USD", per_subscription=True), (("region", "eu"),), EVER)
    prices = (PriceFilter(PriceField.ITEM_ID, FilterOperator.EXCLUDES, ("seat",)),)
    some = Gauge("acme", "acme-pro", Measure(currency="USD", per_subscription=True, prices=prices), (), PERIOD)
    kinds = (BalanceKind.COMMIT,)
    for reading in BalanceReading:
        group = {
            BalanceReading.REMAINING: (("region", "eu"),),
            BalanceReading.REMAINING_PERCENT: (),
            BalanceReading.USED_PERCENT: (("balance_id", "b-1"),),
            BalanceReading.DAYS_LEFT: (("balance_id", "b-1"), ("segment_number", "2")),
        }[reading]
        unit = None if reading is BalanceReading.DAYS_LEFT else "USD"
        measure = Measure(currency=unit, balances=BalanceSelection(kinds, reading))
        timed = replace(transition(PLAIN), cause=Cause(None, NOW))
        yield notification(Gauge("acme", None, measure, group, EVER), timed)
    yield notification(Gauge("acme", None, Measure(days_in_plan=True), (), EVER), transition(PLAIN))
    invoices = Measure(currency="USD", invoices=InvoiceSelection())
    yield notification(Gauge("acme", None, invoices, (("invoice_id", "i-1"),), EVER), transition(PLAIN, caused=False))
    yield notification(usage, transition(PLAIN))
    yield notification(usage, replace(transition(PLAIN), cause=Cause("e-1", NOW, voided_events=2)))
    yield notification(some, transition(PLAIN))
    yield notification(cost, transition(FULL, TransitionKind.RESOLVED))
    yield notification(usage, transition(FULL, caused=False), transition(LADDER))
    yield notification(usage, *[transition(LADDER)] * 60)
    yield replace(notification(usage, transition(PERCENT)), limit=Decimal("640.5"))


def notices() -> Iterator[Notice]:
    """Every kind of notice that the health of an endpoint produces."""
    chance = random.Random(1)
    failed = HealthSample(HealthSignal.FAILED, exhausted=True, delivery={
        "delivery_id": "whd_1", "notification_id": "ntf_1", "attempt_count": 11,
    })  # fmt: skip
    health = Health(max_in_flight=4, failing_since=NOW, failure_count=20)
    for days in (0.0, 2.5, 4.5):
        health, found = health.after(failed, NOW + timedelta(days=days), chance)
        yield from found
    yield from health.after(HealthSample(HealthSignal.SUCCEEDED), NOW, chance)[1]
    yield from health.after(failed, NOW + DISABLE_AFTER, chance)[1]
    yield from Health(max_in_flight=4).after(HealthSample(HealthSignal.GONE), NOW, chance)[1]


def examples(event_types: Iterable[str]) -> list[dict[str, Any]]:
    """The bodies of test events of these types."""
    return [json.loads(example_body(TEST_ID, event_type, "whe_1", NOW)) for event_type in event_types]


def described(part: Any) -> Iterator[str]:
    """The names of all fields that a schema describes."""
    if isinstance(part, dict):
        yield from part.get("properties", {})
        for value in part.values():
            yield from described(value)
    elif isinstance(part, list):
        for value in part:
            yield from described(value)


def sent(value: Any) -> Iterator[str]:
    """The names of all fields in a body."""
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from sent(item)
    elif isinstance(value, list):
        for item in value:
            yield from sent(item)


def test_notifications_are_valid_for_their_schema() -> None:
    bodies = [json.loads(one.body()) for one in notifications()] + examples(TRANSITION_TYPES)
    for body in bodies:
        check(body, ALERT)
    assert {body["type"] for body in bodies} == set(TRANSITION_TYPES)
    assert set(TRANSITION_TYPES) == set(ALERT["properties"]["type"]["enum"])
    # Each described event is sent.
    assert set(described(ALERT)) == {name for body in bodies for name in sent(body)}
    parts = ALERT["$defs"]
    assert parts["alert"]["properties"]["condition"]["enum"] == [condition.value for condition in ConditionType]
    assert parts["gauge"]["properties"]["reading"]["enum"] == [reading.value for reading in BalanceReading]


def test_notices_of_disabled_alerts_are_valid_for_their_schema() -> None:
    group = (("model", "5001"), ("region", "eu"))
    whole = Gauge("acme", None, Measure(metric_id="tokens"), group, PERIOD)
    own = Gauge("acme", "acme-pro", Measure(currency="USD", per_subscription=True), group, PERIOD)
    disabled = [
        DisabledNotification("default", RULE, whole, 5_000, 1, NOW, Cause("e-1", NOW)),
        DisabledNotification("default", RULE, own, 5_000, 2, NOW, None),
    ]
    bodies = [json.loads(one.body()) for one in disabled] + examples([DISABLED_TYPE])
    for body in bodies:
        check(body, DISABLED)
    assert set(TRANSITION_TYPES) | {body["type"] for body in bodies} == set(EVENT_TYPES)
    assert set(described(DISABLED)) == {name for body in bodies for name in sent(body)}
    assert len({body["id"] for body in bodies}) == len(bodies)


def test_every_event_type_has_a_schema_and_a_line_in_the_index() -> None:
    types = {*EVENT_TYPES, *OperatorEventType, TEST_TYPE}
    assert set(FILES) == types
    index = (EVENTS / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z.]+)` .*\]\(([a-z_]+)\.json\)", index, re.MULTILINE)
    assert dict(rows) == FILES
    assert {path.stem for path in EVENTS.glob("*.json")} == set(FILES.values())


def test_the_examples_in_the_index_are_valid_for_their_schemas() -> None:
    examples = re.findall(r"```json\n(.*?)```", (EVENTS / "README.md").read_text(), re.DOTALL)
    bodies = [json.loads(example) for example in examples]
    for body in bodies:
        check_body(body)
    assert [body["type"] for body in bodies] == list(FILES)


def test_operator_events_are_valid_for_their_schema() -> None:
    found = list(notices())
    of_endpoints = set(OperatorEventType) - {OperatorEventType.EVALUATION_FAILED}
    assert {notice.event_type for notice in found} == of_endpoints
    bodies = [json.loads(body_of("evt_" + "a" * 26, OperatorEvent(1, "whe_1", notice), NOW)) for notice in found]
    bodies += examples([*OperatorEventType, TEST_TYPE])
    for body in bodies:
        check(body, OPERATOR)
    assert set(described(OPERATOR)) == {name for body in bodies for name in sent(body)}


def test_every_event_type_has_a_marked_example() -> None:
    assert set(EXAMPLE_TYPES) == set(FILES)
    for event_type, body in zip(EXAMPLE_TYPES, examples(EXAMPLE_TYPES), strict=True):
        check_body(body)
        assert (body["id"], body["type"], body["timestamp"]) == (TEST_ID, event_type, "2026-03-15T12:00:00.000000Z")
        assert body["data"]["test"] is True
        of_itself = event_type == TEST_TYPE
        assert (body["data"].get("endpoint_id") == "whe_1") is of_itself, event_type


def test_a_real_event_is_not_marked_as_a_test() -> None:
    bodies = [one.body() for one in notifications()]
    bodies += [body_of("evt_" + "a" * 26, OperatorEvent(1, "whe_1", notice), NOW) for notice in notices()]
    assert not any("test" in json.loads(body)["data"] for body in bodies)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "evt_1"},
        {"type": "alert.rung"},
        {"timestamp": "2026-03-15T12:00:00+00:00"},
        {"surprise": 1},
        {"data": {}},
    ],
)
def test_the_schema_check_refuses_an_invalid_body(change: dict[str, object]) -> None:
    body = json.loads(next(notifications()).body())
    with pytest.raises(Mismatch):
        check({**body, **change}, ALERT)


def test_amounts_are_never_numbers() -> None:
    one = next(notifications())
    body = json.loads(replace(one, late=True).body())
    body["data"]["value"] = 100
    with pytest.raises(Mismatch):
        check(body, ALERT)
