"""VoidUsageEvents: balances get back what the voided events drew, with entries of their own in the ledger."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from generated.tidemark.v1 import balance_entry_pb2, condition_pb2
from runtime.clock import ManualClock
from tests.support.balances.holder import SEAT, Holder, alert
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, ShortTransition
from tests.support.usage.voiding import outcomes, void

pytestmark = shares_server


@pytest.fixture
def holder(caller: Caller) -> Holder:
    """The customer acme."""
    return Holder(caller)


async def balances(holder: Holder) -> dict[str, Any]:
    """What remains of each balance, and the overages that are not 0."""
    return {**await holder.remaining(), **{unit: one for unit, one in (await holder.overage()).items() if one}}


async def test_balance_gets_back_what_the_event_drew_and_its_alert_resolves(caller: Caller, holder: Holder) -> None:
    await holder.put("b1", "100")
    await caller.create(
        alert("50", low_remaining_commit_balance_reached=condition_pb2.LowRemainingCommitBalanceReachedCondition())
    )
    await holder.spend("e1", "20")
    assert await holder.spend("e2", "40") == [ShortTransition("REACHED", "50", "80", "40", "e2")]
    await holder.spend("e3", "1")
    assert outcomes(await void(caller, "e2")) == ["VOIDED"]
    assert await balances(holder) == {"b1": 79}
    _, resolved = await holder.notified(2)
    assert resolved == [ShortTransition("RESOLVED", "50", "39", "79", "e2")]
    last = (await holder.entries())[-1]
    assert last.type == balance_entry_pb2.BALANCE_ENTRY_TYPE_USAGE_VOID
    assert (last.amount, last.remaining) == ("40", "79")
    assert sum(Decimal(one.amount) for one in await holder.entries()) == 79


async def test_overage_shrinks_before_segments_are_refilled(caller: Caller, holder: Holder) -> None:
    await holder.put("b1", "10", priority=1)
    await holder.put("b2", "10", priority=2)
    for number, cost in enumerate(("8", "9", "7")):
        await holder.spend(f"e{number}", cost)
    assert await balances(holder) == {"b1": 0, "b2": 0, "USD": 4}
    await void(caller, "e0")
    assert await balances(holder) == {"b1": 0, "b2": 4}
    await void(caller, "e1", "e2")
    assert await balances(holder) == {"b1": 10, "b2": 10}


@own_server
async def test_credit_of_an_ended_month_gets_back_what_that_month_drew(
    caller: Caller, holder: Holder, clock: ManualClock
) -> None:
    start = clock.now()
    months = [("10", start, start + timedelta(days=10)), ("10", start + timedelta(days=10), None)]
    await holder.put("monthly", spans=months, priority=1)
    await holder.put("commit", "100", priority=2)
    await holder.spend("first", "6")
    clock.advance(timedelta(days=11))
    await holder.spend("second", "30")
    assert await balances(holder) == {"monthly": 0, "commit": 80}
    await void(caller, "first")
    # The commit keeps what only the second event drew on it.
    assert await balances(holder) == {"monthly": 0, "commit": 80}
    drawn = {one: segment.drawn for one, segment in (await holder.segments()).items()}
    assert drawn == {("monthly", 1): "0", ("monthly", 2): "10", ("commit", 1): "20"}
    await void(caller, "second")
    assert await balances(holder) == {"monthly": 10, "commit": 100}


async def test_seat_credit_gets_back_what_its_seat_drew(caller: Caller, holder: Holder) -> None:
    for seat in ("1", "2"):
        await holder.put(f"seat{seat}", "10", kind=SEAT, seat=("seat", seat))
    await holder.put("pool", "100")
    await holder.spend("e1", "4", seat="1")
    await holder.spend("e2", "15", seat="2")
    await holder.spend("e3", "20")
    assert await balances(holder) == {"seat1": 6, "seat2": 0, "pool": 75}
    await void(caller, "e1")
    assert await balances(holder) == {"seat1": 10, "seat2": 0, "pool": 75}
    await void(caller, "e2")
    assert await balances(holder) == {"seat1": 10, "seat2": 10, "pool": 80}


async def test_balance_of_one_metric_gets_back_what_that_metric_drew(caller: Caller, holder: Holder) -> None:
    await holder.put("of-calls", "10", priority=1, draw_down_metric_ids=["calls"])
    await holder.put("of-all", "100", priority=2)
    await holder.spend("e1", "5", metric="calls")
    await holder.spend("e2", "7", metric="bytes")
    await void(caller, "e1")
    assert await balances(holder) == {"of-calls": 10, "of-all": 93}


@own_server
async def test_event_from_before_the_first_balance_gives_nothing_back(
    caller: Caller, holder: Holder, clock: ManualClock
) -> None:
    await holder.spend("before", "30")
    clock.advance(timedelta(seconds=1))
    await holder.put("b1", "10")
    await holder.spend("after", "4")
    await void(caller, "before")
    assert await balances(holder) == {"b1": 6}
    await void(caller, "after")
    assert await balances(holder) == {"b1": 10}


@own_server
async def test_voided_balance_gets_nothing_back_and_no_other_gets_it(
    caller: Caller, holder: Holder, clock: ManualClock
) -> None:
    await holder.put("gone", "10", priority=1)
    await holder.put("kept", "10", priority=2)
    await holder.spend("e1", "6")
    clock.advance(timedelta(seconds=1))
    await holder.void("gone")
    await holder.spend("e2", "3")
    await void(caller, "e1")
    assert await balances(holder) == {"kept": 7}
    assert [one.type for one in await holder.entries()].count(balance_entry_pb2.BALANCE_ENTRY_TYPE_USAGE_VOID) == 0


async def test_voided_correction_draws_again(caller: Caller, holder: Holder) -> None:
    await holder.put("b1", "10")
    await holder.spend("e1", "8")
    await holder.spend("e2", "-5")
    assert await balances(holder) == {"b1": 7}
    await void(caller, "e2")
    assert await balances(holder) == {"b1": 2}
    last = (await holder.entries())[-1]
    assert (last.type, last.amount) == (balance_entry_pb2.BALANCE_ENTRY_TYPE_USAGE_VOID, "-5")


async def test_balance_held_in_units_gets_the_quantity_back(caller: Caller, holder: Holder) -> None:
    await holder.put("units", "10", metric="calls")
    await caller.send(caller.event("e1", "4"), caller.event("e2", "3"), caller.event("e3", "5", metric="other"))
    await void(caller, "e1", "e3")
    assert await balances(holder) == {"units": 7}


async def test_overdrawn_balance_gets_back_what_lies_below_zero_first(caller: Caller, holder: Holder) -> None:
    await holder.put("first", "10", priority=1, allow_overage=True)
    await holder.put("second", "10", priority=2)
    for number in range(3):
        await holder.spend(f"e{number}", "9")
    assert await balances(holder) == {"first": -7, "second": 0}
    await void(caller, "e0")
    assert await balances(holder) == {"first": 0, "second": 2}


async def test_resent_event_draws_again(caller: Caller, holder: Holder) -> None:
    await holder.put("b1", "10")
    await holder.spend("e1", "8")
    await void(caller, "e1")
    await holder.spend("e1", "3")
    assert await balances(holder) == {"b1": 7}


async def test_percentage_of_a_balance_is_exact_after_a_void(caller: Caller, holder: Holder) -> None:
    await holder.put("b1", "30")
    created = await caller.create(
        alert(
            "50",
            low_remaining_commit_percentage_reached=condition_pb2.LowRemainingCommitPercentageReachedCondition(),
        )
    )
    await holder.spend("e1", "10")
    await holder.spend("e2", "10")
    await void(caller, "e1")
    state = await caller.state(created.alert_id)
    assert [one.gauge.value for one in state.gauges] == ["66.666666666666666667"]
