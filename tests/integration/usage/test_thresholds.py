"""Thresholds on a gauge that usage moves: fixed and recurring ones, hysteresis, notify_on, notifications."""

from collections.abc import Sequence

import pytest

from generated.tidemark.v1 import (
    customer_alert_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    BOTH,
    REACHED,
    RESOLVED,
    Caller,
    ShortTransition,
    on_customer,
    shortened,
    thresholds,
    usage_alert,
)

pytestmark = shares_server

Threshold = threshold_pb2.Threshold


def reached(level: str, previous_value: str, value: str, event_id: str) -> ShortTransition:
    return ShortTransition("REACHED", level, previous_value, value, event_id)


def resolved(level: str, previous_value: str, value: str, event_id: str) -> ShortTransition:
    return ShortTransition("RESOLVED", level, previous_value, value, event_id)


def notifying_of_both(threshold: Threshold) -> Threshold:
    """The threshold, notifying of both kinds of transitions."""
    copied = Threshold(notify_on=BOTH)
    copied.MergeFrom(threshold)
    return copied


async def stream_of(caller: Caller, quantities: Sequence[str], first: int = 0) -> list[ShortTransition]:
    """The transitions of one batch; its events are named e0, e1, … or from another first number."""
    events = [caller.event(f"e{first + place}", quantity) for place, quantity in enumerate(quantities)]
    return shortened((await caller.send(*events)).transitions)


CASES: dict[str, tuple[list[Threshold], list[str], list[ShortTransition]]] = {
    "exactly at the level": (thresholds("10"), ["4", "6"], [reached("10", "4", "10", "e1")]),
    "just below the level": (thresholds("10"), ["9.999999999999999999"], []),
    "18 decimals": (
        thresholds("0.000000000000000003"),
        ["0.000000000000000002", "0.000000000000000001"],
        [reached("0.000000000000000003", "0.000000000000000002", "0.000000000000000003", "e1")],
    ),
    "38 digits": (
        thresholds("12345678901234567890.123456789012345678"),
        ["12345678901234567890.123456789012345677", "0.000000000000000001"],
        [
            reached(
                "12345678901234567890.123456789012345678",
                "12345678901234567890.123456789012345677",
                "12345678901234567890.123456789012345678",
                "e1",
            )
        ],
    ),
    "zero, by the first event": (thresholds("0"), ["0"], [reached("0", "0", "0", "e0")]),
    "negative, by the first event": (thresholds("-5"), ["-4"], [reached("-5", "0", "-4", "e0")]),
    "negative, from below": (
        thresholds("-5"),
        ["-7", "1", "1"],
        [reached("-5", "-6", "-5", "e2")],
    ),
    "a jump over several thresholds, in order": (
        thresholds("30", "10", "20", "40"),
        ["5", "30"],
        [reached("10", "5", "35", "e1"), reached("20", "5", "35", "e1"), reached("30", "5", "35", "e1")],
    ),
    "beyond the level to the end": (thresholds("10"), ["11", "5", "5", "5"], [reached("10", "0", "11", "e0")]),
    "up and down and up": (
        thresholds("10"),
        ["12", "-5", "4", "-2"],
        [
            reached("10", "0", "12", "e0"),
            resolved("10", "12", "7", "e1"),
            reached("10", "7", "11", "e2"),
            resolved("10", "11", "9", "e3"),
        ],
    ),
    "several thresholds resolve, the furthest first": (
        thresholds("10", "20", "30"),
        ["35", "-30"],
        [reached(level, "0", "35", "e0") for level in ("10", "20", "30")]
        + [resolved(level, "35", "5", "e1") for level in ("30", "20", "10")],
    ),
    "hysteresis": (
        [Threshold(value="100", resolve_value="80")],
        ["100", "-10", "5", "-14.9", "-0.1", "15", "5"],
        [reached("100", "0", "100", "e0"), resolved("100", "80.1", "80", "e4"), reached("100", "95", "100", "e6")],
    ),
    "a recurring threshold after fixed ones": (
        [*thresholds("500", "1000"), Threshold(recurring_step="200")],
        ["499", "700", "1", "200", "500"],
        [
            reached("500", "499", "1199", "e1"),
            reached("1000", "499", "1199", "e1"),
            reached("1200", "1199", "1200", "e2"),
            reached("1400", "1200", "1400", "e3"),
            reached("1600", "1400", "1900", "e4"),
            reached("1800", "1400", "1900", "e4"),
        ],
    ),
    "only a recurring threshold": (
        [Threshold(recurring_step="0.5")],
        ["0.5", "0.4", "0.1", "0.25"],
        [reached("0.5", "0", "0.5", "e0"), reached("1", "0.9", "1", "e2")],
    ),
    "recurrences that resolve": (
        [Threshold(recurring_step="10")],
        ["35", "-20", "10"],
        [reached(level, "0", "35", "e0") for level in ("10", "20", "30")]
        + [resolved("30", "35", "15", "e1"), resolved("20", "35", "15", "e1"), reached("20", "15", "25", "e2")],
    ),
    "a jump over a thousand recurrences": (
        [Threshold(recurring_step="1")],
        ["1000"],
        [reached(str(level), "0", "1000", "e0") for level in range(981, 1001)],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_thresholds_are_reached_and_resolved_in_order_in_one_batch_and_in_single_events(
    caller: Caller, case: str
) -> None:
    defined, quantities, expected = CASES[case]
    await caller.create(usage_alert(thresholds=[notifying_of_both(one) for one in defined]))
    assert await stream_of(caller, quantities) == expected
    notified = [crossing for one in await caller.notifications() for crossing in one.transitions]
    assert notified == expected
    # The same events one by one, for another customer.
    found: list[ShortTransition] = []
    for place, quantity in enumerate(quantities):
        found += shortened((await caller.send(caller.event(f"e{place}", quantity, "beta"))).transitions)
    assert found == expected
    by_event = [one.transitions for one in await caller.notifications() if one.customer_id == "beta"]
    assert [crossing for group in by_event for crossing in group] == expected
    assert all(len({crossing.event_id for crossing in group}) == 1 for group in by_event)


async def test_sequence_counts_every_notification_when_a_threshold_resolves_within_each_commit(
    caller: Caller,
) -> None:
    """No threshold is reached at the end of the first commit; the second nevertheless continues the sequence."""
    await caller.create(usage_alert(thresholds=[Threshold(value="10", notify_on=BOTH)]))
    for number in range(3):
        found = await stream_of(caller, ["12", "-12"], first=2 * number)
        assert [one.kind for one in found] == ["REACHED", "RESOLVED"]
    stored = await caller.notifications()
    assert [one.sequence for one in stored] == [1, 2, 3]
    assert len({one.notification_id for one in stored}) == 3


NOTIFY_ON: dict[str, tuple[list[threshold_pb2.TransitionKind.ValueType], list[tuple[str, list[str]]]]] = {
    "unset": ([], [("alert.reached", ["REACHED"]), ("alert.reached", ["REACHED"])]),
    "reached": ([REACHED], [("alert.reached", ["REACHED"]), ("alert.reached", ["REACHED"])]),
    "resolved": ([RESOLVED], [("alert.resolved", ["RESOLVED"])]),
    "both": (
        [RESOLVED, REACHED],
        [("alert.reached", ["REACHED"]), ("alert.resolved", ["RESOLVED"]), ("alert.reached", ["REACHED"])],
    ),
}


@pytest.mark.parametrize("choice", NOTIFY_ON)
async def test_notify_on_selects_what_is_notified_and_the_answer_has_every_transition(
    caller: Caller, choice: str
) -> None:
    kinds, expected = NOTIFY_ON[choice]
    alert = await caller.create(usage_alert(thresholds=[Threshold(value="10", notify_on=kinds)]))
    wanted = set(kinds) or {REACHED}
    sequence = 0
    for event_id, quantity, kind in (("e0", "10", REACHED), ("e1", "-1", RESOLVED), ("e2", "1", REACHED)):
        [transition] = (await caller.send(caller.event(event_id, quantity))).transitions
        assert (transition.kind, transition.event_id) == (kind, event_id)
        sequence += kind in wanted
        assert transition.notified is (kind in wanted)
        assert transition.sequence == (sequence if kind in wanted else 0)
        assert bool(transition.notification_id) is (kind in wanted)
        state = await caller.state(alert.alert_id)
        assert state.gauges[0].thresholds[0].in_alarm is (kind == REACHED)
        assert state.gauges[0].sequence == sequence
    stored = await caller.notifications()
    assert [(one.event_type, [item.kind for item in one.transitions]) for one in stored] == expected
    assert [one.sequence for one in stored] == list(range(1, len(expected) + 1))


async def test_thresholds_of_one_alert_can_have_different_notify_on(caller: Caller) -> None:
    defined = [
        Threshold(value="10", code="warn", notify_on=[RESOLVED]),
        Threshold(value="20", code="block", severity=threshold_pb2.SEVERITY_CRITICAL),
    ]
    await caller.create(usage_alert(thresholds=defined))
    answer = await caller.send(caller.event("e0", "25"))
    assert [(one.threshold.code, one.notified, one.furthest) for one in answer.transitions] == [
        ("warn", False, False),
        ("block", True, True),
    ]
    [stored] = await caller.notifications()
    [notified] = stored.body["data"]["transitions"]
    assert notified["threshold"] == {"code": "block", "value": "20", "severity": "CRITICAL"}


async def test_notification_marks_the_furthest_of_its_own_transitions(caller: Caller) -> None:
    defined = [Threshold(value="10"), Threshold(value="20"), Threshold(value="30", notify_on=[RESOLVED])]
    await caller.create(usage_alert(thresholds=defined))
    answer = await caller.send(caller.event("e0", "35"))
    assert [one.furthest for one in answer.transitions] == [False, False, True]
    [stored] = await caller.notifications()
    assert [(one["level"], one["furthest"]) for one in stored.body["data"]["transitions"]] == [
        ("10", False),
        ("20", True),
    ]


async def test_notification_has_the_same_evidence_as_the_answer(caller: Caller, clock: ManualClock) -> None:
    alert = await caller.create(usage_alert("10", "20", groups=[("region", None)]))
    answer = await caller.send(caller.event("e1", "4", region="eu"), caller.event("e2", "21.50", region="eu"))
    first, second = answer.transitions
    [stored] = await caller.notifications()
    assert {first.notification_id, second.notification_id} == {stored.notification_id}
    assert (first.furthest, second.furthest) == (False, True)
    now = clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    transition = {"kind": "REACHED", "previous_value": "4", "value": "25.5", "event_id": "e2", "event_time": now}
    assert stored.body == {
        "id": stored.notification_id,
        "type": "alert.reached",
        "timestamp": now,
        "data": {
            "alert_id": alert.alert_id,
            "alert_display_name": "usage",
            "alert_version": 1,
            "condition": "usage_threshold_reached",
            "customer_id": "acme",
            "gauge": {
                "customer_id": "acme",
                "metric_id": "calls",
                "group": [{"key": "region", "value": "eu"}],
                "period": {"start_time": "2026-03-01T00:00:00.000000Z", "end_time": "2026-04-01T00:00:00.000000Z"},
            },
            "previous_value": "4",
            "value": "25.5",
            "sequence": 1,
            "late": False,
            "ingest_time": now,
            "transitions": [
                {**transition, "threshold": {"value": "10"}, "level": "10", "furthest": False},
                {**transition, "threshold": {"value": "20"}, "level": "20", "furthest": True},
            ],
        },
    }
    assert (second.alert_id, second.alert_version, second.sequence) == (alert.alert_id, 1, 1)
    assert (second.event_id, second.previous_value, second.value, second.gauge.value) == ("e2", "4", "25.5", "25.5")
    assert second.event_time.ToDatetime() == second.ingest_time.ToDatetime() == clock.now().replace(tzinfo=None)


async def test_alerts_on_one_gauge_are_evaluated_independently(caller: Caller) -> None:
    low = await caller.create(usage_alert("10"))
    high = await caller.create(usage_alert("30", scope=on_customer()))
    twin = await caller.create(usage_alert("10"))
    answer = await caller.send(caller.event("e1", "12"), caller.event("e2", "12"))
    found = sorted((one.alert_id, one.level, one.sequence) for one in answer.transitions)
    assert found == sorted((alert.alert_id, "10", 1) for alert in (low, twin))
    answer = await caller.send(caller.event("e3", "12"))
    assert [(one.alert_id, one.level) for one in answer.transitions] == [(high.alert_id, "30")]
    await caller.archive(low.alert_id)
    answer = await caller.send(caller.event("e4", "-30"), caller.event("e5", "30"))
    kinds = [(one.alert_id, one.kind) for one in answer.transitions]
    assert sorted(kinds) == sorted((alert.alert_id, kind) for alert in (high, twin) for kind in (RESOLVED, REACHED))


async def test_notification_body_has_the_last_50_transitions_and_counts_the_omitted_ones(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=[Threshold(value="10", notify_on=BOTH)]))
    found = await stream_of(caller, ["10", "-10"] * 40)
    assert len(found) == 80
    [stored] = await caller.notifications()
    assert stored.body["data"]["omitted"] == 30
    assert stored.transitions == found[30:]


async def test_state_in_alarm_shows_its_reached_thresholds(caller: Caller, clock: ManualClock) -> None:
    defined = [*thresholds("10", "100"), Threshold(recurring_step="50", code="every")]
    alert = await caller.create(usage_alert(thresholds=defined))
    await caller.send(caller.event("e1", "210"))
    state = await caller.state(alert.alert_id)
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    [gauge] = state.gauges
    assert gauge.gauge.value == "210"
    assert [(one.in_alarm, one.level) for one in gauge.thresholds] == [(True, "10"), (True, "100"), (True, "200")]
    assert gauge.change_reason == customer_alert_pb2.CHANGE_REASON_USAGE
    await caller.send(caller.event("e2", "-205"))
    state = await caller.state(alert.alert_id)
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    assert [one.in_alarm for one in state.gauges[0].thresholds] == [False] * 3
