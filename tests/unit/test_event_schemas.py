"""The schemas of docs/events describe exactly the events that are sent."""

import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from evaluator.alerts import ConditionType
from evaluator.balances import BalanceReading, Unit
from evaluator.gauges import Gauge, Measure
from evaluator.notifications import (
    DISABLED_TYPE,
    EVENT_TYPES,
    TRANSITION_TYPES,
    DisabledNotification,
    RequestedDisabling,
)
from evaluator.recharge_notifications import (
    NOTIFICATION_TYPES,
    RECHARGE_TYPES,
    PolicyDisabledNotification,
    RechargeNotification,
)
from evaluator.recharges import CancelReason, DisabledReason, RechargeState, recharge_id_of
from evaluator.transitions import Cause
from tests.support.evaluator.sent import NOW, PERIOD, RULE, notifications
from tests.support.schemas import EVENTS, FILES, Mismatch, check, check_body, schema
from webhooks.example_events import EXAMPLE_TYPES, TEST_TYPE, example_body
from webhooks.health import DISABLE_AFTER, Health, HealthSample, HealthSignal
from webhooks.operator_events import LimitRefusal, Notice, OperatorEvent, OperatorEventType, body_of

TEST_ID = "tst_" + "a" * 26
ALERT = schema("alert")
RECHARGE = schema("recharge")
DISABLED = schema("alert_disabled")
OPERATOR = schema("operator")


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
    disabled: list[DisabledNotification | RequestedDisabling] = [
        DisabledNotification("default", RULE, whole, 5_000, 1, NOW, Cause("e-1", NOW)),
        DisabledNotification("default", RULE, own, 5_000, 2, NOW, None),
        RequestedDisabling("default", RULE, "acme", "acme-pro", 3, NOW),
        RequestedDisabling("default", RULE, "acme", None, 3, NOW),
        RequestedDisabling("default", RULE, "", None, 3, NOW),
    ]
    bodies = [json.loads(one.body()) for one in disabled] + examples([DISABLED_TYPE])
    for body in bodies:
        check(body, DISABLED)
    assert set(TRANSITION_TYPES) | {body["type"] for body in bodies} == set(EVENT_TYPES)
    assert set(described(DISABLED)) == {name for body in bodies for name in sent(body)}
    assert len({body["id"] for body in bodies}) == len(bodies)


def recharge_notifications() -> Iterator[RechargeNotification | PolicyDisabledNotification]:
    """A recharge in each state that is notified, and a policy that switched itself off for each reason."""
    for unit, state, reason in (
        (Unit("USD"), RechargeState.REQUESTED, None),
        (Unit(metric_id="tokens"), RechargeState.EXPIRED, None),
        (Unit("USD"), RechargeState.CANCELED, CancelReason.POLICY_DELETED),
        (Unit("USD"), RechargeState.CANCELED, CancelReason.BALANCE_VOIDED),
    ):
        yield RechargeNotification(
            organization="1",
            recharge_id=recharge_id_of(1, "rcp_1", 7),
            customer_id="acme",
            balance_id="prepaid",
            unit=unit,
            recharge_sequence=7,
            state=state,
            attempt=2,
            amount=Decimal("87.50"),
            remaining=Decimal("-12.5"),
            request_time=NOW,
            expire_time=NOW + timedelta(days=7),
            time=NOW + timedelta(days=1),
            cancel_reason=reason,
        )
    for number, off in enumerate(DisabledReason):
        yield PolicyDisabledNotification(
            organization="1",
            policy_id="rcp_1",
            customer_id="acme",
            balance_id="prepaid",
            unit=Unit("USD"),
            reason=off,
            failed_attempts=number,
            max_attempts=3,
            last_recharge_id=recharge_id_of(1, "rcp_1", number) if number else None,
            time=NOW,
        )


def test_notifications_about_recharges_are_valid_for_their_schema() -> None:
    real = list(recharge_notifications())
    bodies = [json.loads(one.body()) for one in real] + examples(RECHARGE_TYPES)
    for body in bodies:
        check(body, RECHARGE)
    assert {body["type"] for body in bodies} == set(RECHARGE_TYPES)
    assert {(one.alert_id, one.condition_type, one.gauge_id, one.sequence) for one in real} == {("", "", None, 0)}
    assert set(described(RECHARGE)) == {name for body in bodies for name in sent(body)}
    of_one_recharge = {one.notification_id for one in real[:3]}
    assert len(of_one_recharge) == 3  # each of its states notifies once, with the same id on every replica
    parts = RECHARGE["$defs"]
    data = parts["recharge"]["properties"]["data"]["properties"]
    assert data["cancel_reason"]["enum"] == [reason.value for reason in CancelReason]
    disabled = parts["policy_disabled"]["properties"]["data"]["properties"]
    assert disabled["reason"]["enum"] == [reason.value for reason in DisabledReason]


def test_every_event_type_has_a_schema_and_a_line_in_the_index() -> None:
    types = {*NOTIFICATION_TYPES, *OperatorEventType, TEST_TYPE}
    assert set(FILES) == types
    index = (EVENTS / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z._]+)` .*\]\(([a-z_]+)\.json\)", index, re.MULTILINE)
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
    of_others = {OperatorEventType.EVALUATION_FAILED, OperatorEventType.LIMIT_REFUSED}
    of_endpoints = set(OperatorEventType) - of_others
    assert {notice.event_type for notice in found} == of_endpoints
    bodies = [json.loads(body_of("evt_" + "a" * 26, OperatorEvent(1, "whe_1", notice), NOW)) for notice in found]
    bodies += examples([*OperatorEventType, TEST_TYPE])
    refusal = LimitRefusal("l", "acme", "s", {"currency": "USD"}, (), "1", "0", "-1", "ROLLING", NOW, NOW)
    bodies.append(json.loads(body_of("evt_" + "a" * 26, OperatorEvent(1, "", refusal.notice), NOW)))
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
