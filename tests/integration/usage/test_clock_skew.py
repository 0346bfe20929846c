"""Clocks of senders and servers that differ by up to five minutes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from runtime.clock import ManualClock
from tests.support.usage.caller import Caller, Refusal, ShortTransition, calling, refusals, shortened, usage_alert
from tests.support.usage.periods import APRIL, MARCH, by_period, move_to

FIVE_MINUTES = timedelta(minutes=5)
MICROSECOND = timedelta(microseconds=1)
MIDNIGHT = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
async def ahead(caller: Caller, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller of a second server, whose clock is five minutes ahead; the first one's is just before midnight."""
    await move_to(caller, clock, MIDNIGHT - timedelta(minutes=2))
    fast = ManualClock(clock.now() + FIVE_MINUTES)
    async with calling(caller.database_url, fast, caller.organization, caller.key) as ahead:
        yield ahead


async def test_event_is_rejected_when_it_is_more_than_five_minutes_ahead(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("10"))
    now = clock.now()
    answer = await caller.send(
        caller.event("behind", "4", at=now - FIVE_MINUTES),
        caller.event("ahead", "6", at=now + FIVE_MINUTES),
        caller.event("too far", "90", at=now + FIVE_MINUTES + MICROSECOND),
        gauges=True,
    )
    assert refusals(answer) == [Refusal(2, "INVALID_ARGUMENT", "EVENT_IN_FUTURE")]
    assert by_period(answer) == {MARCH: "10"}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "4", "10", "ahead")]


async def test_servers_with_clocks_five_minutes_apart_count_each_event_in_its_own_period(
    caller: Caller, ahead: Caller
) -> None:
    await caller.create(usage_alert("10"))
    assert (ahead.clock.now() >= MIDNIGHT) is (caller.clock.now() < MIDNIGHT) is True
    await caller.send(caller.event("m1", "6"), caller.event("a1", "6", at=MIDNIGHT + timedelta(minutes=3)))
    march = await ahead.send(ahead.event("m2", "4", at=MIDNIGHT - MICROSECOND), gauges=True)
    assert by_period(march) == {MARCH: "10"}
    assert [(one.event_id, one.late) for one in march.transitions] == [("m2", True)]
    april = await ahead.send(ahead.event("a2", "4"), gauges=True)
    assert by_period(april) == {APRIL: "10"}
    assert [(one.event_id, one.late) for one in april.transitions] == [("a2", False)]
    assert not (await caller.send(caller.event("m3", "1"))).transitions
    assert sorted(one.transitions for one in await caller.notifications()) == [
        [ShortTransition("REACHED", "10", "6", "10", "a2")],
        [ShortTransition("REACHED", "10", "6", "10", "m2")],
    ]


async def test_alert_created_by_the_slower_clock_counts_all_of_the_next_period(caller: Caller, ahead: Caller) -> None:
    await ahead.send(ahead.event("a1", "9"))
    await caller.create(usage_alert("10"))
    answer = await caller.send(caller.event("a2", "1", at=MIDNIGHT), gauges=True)
    assert by_period(answer) == {APRIL: "10"}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "9", "10", "a2")]
