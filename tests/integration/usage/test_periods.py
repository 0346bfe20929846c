"""Billing periods: late and early events, first events, anchors, time zones, closed periods and their grace."""

from datetime import datetime, timedelta

import pytest

from generated.tidemark.v1 import (
    billing_period_pb2,
    customer_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from tests.support.usage.caller import (
    BOTH,
    Caller,
    Refusal,
    ShortTransition,
    on_subscription,
    refusals,
    shortened,
    spend_alert,
    usage_alert,
)
from tests.support.usage.periods import APRIL, DAY, MARCH, MONTH, YEAR, by_period, cycle, move_to, period_of, utc

MICROSECOND = timedelta(microseconds=1)


async def test_late_event_counts_in_its_own_period_and_is_marked_late(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert(thresholds=[threshold_pb2.Threshold(value="10", notify_on=BOTH)]))
    await caller.send(caller.event("e1", "8"))
    clock.set(utc(4, 2))
    answer = await caller.send(
        caller.event("e2", "9"),
        caller.event("e3", "3", at=APRIL[0] - MICROSECOND),
        caller.event("e4", "0"),
        gauges=True,
    )
    assert by_period(answer) == {MARCH: "11", APRIL: "9"}
    [transition] = answer.transitions
    assert transition.late
    assert (transition.event_id, period_of(transition.gauge)) == ("e3", MARCH)
    [stored] = await caller.notifications()
    assert stored.body["data"]["late"] is True
    assert stored.body["data"]["gauge"]["period"]["end_time"] == "2026-04-01T00:00:00.000000Z"
    corrected = await caller.send(caller.event("e5", "-3", at=utc(3, 20)))
    assert [(one.kind, one.late) for one in corrected.transitions] == [(threshold_pb2.TRANSITION_KIND_RESOLVED, True)]


async def test_late_event_recounts_a_period_that_no_alert_watched(caller: Caller, clock: ManualClock) -> None:
    await caller.send(caller.event("e1", "8"))
    clock.set(utc(4, 2))
    await caller.create(usage_alert("10"))
    answer = await caller.send(caller.event("e2", "3", at=utc(3, 31)), gauges=True)
    assert by_period(answer) == {MARCH: "11"}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "8", "11", "e2")]


async def test_first_event_of_a_new_period_can_reach_a_threshold(caller: Caller, clock: ManualClock) -> None:
    alert = await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "12"))
    clock.set(utc(4, 1))
    assert (await caller.state(alert.alert_id)).no_data
    answer = await caller.send(caller.event("e2", "15"), caller.event("e3", "15", "beta"), gauges=True)
    assert sorted(shortened(answer.transitions)) == [
        ShortTransition("REACHED", "10", "0", "15", "e2"),
        ShortTransition("REACHED", "10", "0", "15", "e3"),
    ]
    assert not any(one.late for one in answer.transitions)
    assert [(one.customer_id, one.sequence) for one in await caller.notifications()] == [
        ("acme", 1),
        ("acme", 1),
        ("beta", 1),
    ]


async def test_silently_reached_threshold_re_arms_in_the_next_period(caller: Caller, clock: ManualClock) -> None:
    await caller.send(caller.event("e1", "15"))
    await caller.create(usage_alert("10"), evaluate=False)
    assert not (await caller.send(caller.event("e2", "1"))).transitions
    clock.set(utc(4, 1, 2))
    answer = await caller.send(caller.event("e3", "4"), caller.event("e4", "6"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "4", "10", "e4")]


async def test_event_ahead_of_the_clock_counts_in_the_next_period(caller: Caller, clock: ManualClock) -> None:
    await move_to(caller, clock, utc(3, 31, 23, 57))
    await caller.send(caller.event("e1", "9", at=utc(4, 1, 0, 2)))
    clock.advance(timedelta(minutes=1))
    alert = await caller.create(usage_alert("10"), evaluate=False)
    assert (await caller.state(alert.alert_id)).no_data
    clock.set(utc(4, 1, 0, 10))
    answer = await caller.send(caller.event("e2", "1"), gauges=True)
    assert by_period(answer) == {APRIL: "10"}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "9", "10", "e2")]


async def test_batch_with_events_of_two_periods_counts_each_in_its_own(caller: Caller, clock: ManualClock) -> None:
    clock.set(utc(4, 2))
    await caller.create(usage_alert("10", "12"))
    events = [
        caller.event(f"e{number}", "2", at=utc(3, 20, number) if number % 2 else utc(4, 1, number))
        for number in range(12)
    ]
    answer = await caller.send(*events, gauges=True)
    assert by_period(answer) == {MARCH: "12", APRIL: "12"}
    assert [one.event_id for one in answer.transitions if one.late] == ["e9", "e11"]
    assert [one.event_id for one in answer.transitions if not one.late] == ["e8", "e10"]


async def test_closed_period_accepts_events_until_its_grace_ends(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "8"))
    closed = APRIL[0] + timedelta(days=34)
    await move_to(caller, clock, closed - MICROSECOND)
    answer = await caller.send(caller.event("e2", "5", at=utc(3, 1)))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "8", "13", "e2")]
    clock.set(closed)
    answer = await caller.send(
        caller.event("e3", "5", at=APRIL[0] - MICROSECOND),
        caller.event("e4", "5", at=APRIL[0]),
        caller.event("e2", "5", at=utc(3, 1)),
        caller.event("e2", "6", at=utc(3, 1)),
        gauges=True,
    )
    too_old = ("FAILED_PRECONDITION", "EVENT_TOO_OLD")
    assert refusals(answer) == [Refusal(0, *too_old), Refusal(3, *too_old)]
    assert (answer.accepted, answer.duplicates) == (1, 1), "an event that was stored in time stays a duplicate"
    assert by_period(answer) == {APRIL: "5"}
    assert await caller.event_count() == 3


async def test_event_counts_for_its_subscription_when_the_period_of_its_customer_is_closed(
    caller: Caller, clock: ManualClock
) -> None:
    """The grace of the customer's month has ended; the subscription's year is still open."""
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", billing_cycle=cycle(utc(1, 1), YEAR))
    )
    alert = usage_alert("10", scope=on_subscription("pro"))
    alert.usage_exceeded.metric_id = "calls"
    await caller.create(alert)
    await move_to(caller, clock, utc(11, 1))
    old = utc(3, 15)
    answer = await caller.send(
        caller.event("e1", "20", at=old, subscription="pro"),
        caller.event("e2", "20", at=old, subscription="free"),
        caller.event("e3", "20", at=old),
        gauges=True,
    )
    assert [one.at for one in refusals(answer)] == [1, 2]
    assert by_period(answer) == {(utc(1, 1), utc(1, 1, year=2027)): "20"}
    assert not answer.transitions[0].late


ANCHORS: dict[str, tuple[billing_period_pb2.BillingCycle, list[tuple[datetime, tuple[datetime, datetime]]]]] = {
    "the 31st": (
        cycle(utc(1, 31)),
        [
            (utc(2, 27, 23, 59), (utc(1, 31), utc(2, 28))),
            (utc(2, 28), (utc(2, 28), utc(3, 31))),
            (utc(3, 30, 23, 59), (utc(2, 28), utc(3, 31))),
            (utc(3, 31), (utc(3, 31), utc(4, 30))),
        ],
    ),
    "midnight in New York, before and after daylight saving time begins": (
        cycle(utc(1, 1, 5), MONTH, "America/New_York"),
        [
            (utc(3, 1, 4, 59), (utc(2, 1, 5), utc(3, 1, 5))),
            (utc(3, 1, 5), (utc(3, 1, 5), utc(4, 1, 4))),
            (utc(4, 1, 3, 59), (utc(3, 1, 5), utc(4, 1, 4))),
            (utc(4, 1, 4), (utc(4, 1, 4), utc(5, 1, 4))),
        ],
    ),
    "a day of 23 hours in Berlin": (
        cycle(utc(3, 1, 23), DAY, "Europe/Berlin"),
        [
            (utc(3, 28, 22, 59), (utc(3, 27, 23), utc(3, 28, 23))),
            (utc(3, 28, 23), (utc(3, 28, 23), utc(3, 29, 22))),
            (utc(3, 29, 21, 59), (utc(3, 28, 23), utc(3, 29, 22))),
            (utc(3, 29, 22), (utc(3, 29, 22), utc(3, 30, 22))),
        ],
    ),
}


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("alert_first", [True, False])
async def test_events_count_in_the_periods_of_the_billing_cycle_of_their_customer(
    caller: Caller, clock: ManualClock, anchor: str, alert_first: bool
) -> None:
    clock.set(utc(4, 2))
    billing_cycle, expected = ANCHORS[anchor]
    if alert_first:
        await caller.create(usage_alert("1"))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=billing_cycle))
    events = [caller.event(f"e{number}", str(10**number), at=time) for number, (time, _) in enumerate(expected)]
    sums: dict[tuple[datetime, datetime], int] = {}
    for number, (_, period) in enumerate(expected):
        sums[period] = sums.get(period, 0) + 10**number
    if alert_first:
        answer = await caller.send(*events, gauges=True)
    else:
        await caller.send(*events)
        await caller.create(usage_alert("1000000"))
        nothing = [caller.event(f"n{number}", "0", at=time) for number, (time, _) in enumerate(expected)]
        answer = await caller.send(*nothing, gauges=True)
    assert by_period(answer) == {period: str(value) for period, value in sums.items()}


async def test_subscription_and_customer_have_separate_billing_cycles(caller: Caller, clock: ManualClock) -> None:
    own = cycle(utc(1, 10))
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", billing_cycle=own)
    )
    alert = spend_alert("100", scope=on_subscription("pro"))
    alert.spend_exceeded.currency = "USD"
    await caller.create(alert)
    await caller.create(spend_alert("100"))
    answer = await caller.send(
        caller.event("e1", cost="60", at=utc(3, 5), subscription="pro"),
        caller.event("e2", cost="60", at=utc(3, 12), subscription="pro"),
        gauges=True,
    )
    assert {(one.subscription_id, period_of(one)): one.value for one in answer.gauges} == {
        ("", MARCH): "120",
        ("pro", (utc(2, 10), utc(3, 10))): "60",
        ("pro", (utc(3, 10), utc(4, 10))): "60",
    }
    assert [one.gauge.subscription_id for one in answer.transitions] == [""]


async def test_changed_billing_cycle_counts_stored_events_in_its_new_period(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "6", at=utc(3, 2)), caller.event("e2", "3", at=utc(3, 12)))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=cycle(utc(3, 10))))
    answer = await caller.send(caller.event("e3", "7"), gauges=True)
    assert by_period(answer) == {(utc(3, 10), utc(4, 10)): "10"}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "3", "10", "e3")]
    assert [period_of(item.gauge) for item in (await caller.state(alert.alert_id)).gauges] == [
        (utc(3, 10), utc(4, 10))
    ]
