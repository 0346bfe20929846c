"""Balances of which reservations hold something: usage, changes of balances, alerts, the ledger and the API."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest

from evaluator.balances import Unit
from evaluator.enforcement.decisions import Credit
from generated.tidemark.v1 import account_service_pb2, balance_entry_pb2, condition_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.balances.holder import GRANT, SEAT, Holder, alert
from tests.support.balances.reserving import Reserver
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, ShortTransition
from tests.support.usage.voiding import outcomes, void

pytestmark = shares_server

COMMITS = condition_pb2.LowRemainingCommitBalanceReachedCondition()


@pytest.fixture
def holder(caller: Caller) -> Holder:
    """The customer acme."""
    return Holder(caller)


@pytest.fixture
async def reserver(caller: Caller, database: Database) -> Reserver:
    """Its reservations."""
    await caller.send(caller.event("first", "0"))
    return Reserver(database, caller)


async def shown(holder: Holder) -> dict[tuple[str, int], Any]:
    """What is held, drawn and remains of each segment, and that nothing is lost."""
    found = await holder.segments()
    for one in found.values():
        assert Decimal(one.granted) == Decimal(one.remaining) + Decimal(one.held) + Decimal(one.drawn)
    return {key: (Decimal(one.held), Decimal(one.drawn), Decimal(one.remaining)) for key, one in found.items()}


async def test_usage_and_other_holds_leave_what_is_held(holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "10", priority=1)
    await holder.put("b2", "5", priority=2)
    await reserver.hold(("r1", reserver.usage("8")))
    assert await shown(holder) == {("b1", 1): (8, 0, 2), ("b2", 1): (0, 0, 5)}
    await holder.spend("e1", "3")
    assert await shown(holder) == {("b1", 1): (8, 2, 0), ("b2", 1): (0, 1, 4)}
    assert await reserver.available(reserver.usage("9")) == [Credit(Unit("USD"), Decimal(9), Decimal(4))]
    await reserver.hold(("r2", reserver.usage("6")))
    assert reserver.holds["r2"][0].overage == 2
    await reserver.release("r1", "r2")
    assert await shown(holder) == {("b1", 1): (0, 2, 8), ("b2", 1): (0, 1, 4)}
    answer = await holder.caller.accounts.GetBalance(
        account_service_pb2.GetBalanceRequest(customer_id="acme", balance_id="b1"), metadata=holder.caller.metadata
    )
    assert (answer.balance.granted, answer.balance.held, answer.balance.remaining) == ("10", "0", "8")


async def test_twenty_holds_at_once_take_what_there_is(holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "500")
    made = await asyncio.gather(
        *(reserver.hold((f"r{number}", reserver.usage("75")), only_available=True) for number in range(20))
    )
    assert sum(len(one) for one in made) == 6
    assert await shown(holder) == {("b1", 1): (450, 0, 50)}
    await reserver.release(*reserver.holds)
    assert await shown(holder) == {("b1", 1): (0, 0, 500)}


async def test_many_holds_of_one_commit_see_each_other(holder: Holder, reserver: Reserver) -> None:
    """Also the segments behind those that all of them need together."""
    for number in range(6):
        await holder.put(f"b{number}", "2", priority=number)
    wanted = [(f"r{number}", reserver.usage("3")) for number in range(5)]
    assert await reserver.hold(*wanted, only_available=True) == ["r0", "r1", "r2", "r3"]
    assert sum(one[0] for one in (await shown(holder)).values()) == 12


async def test_settled_usage_moves_alerts_and_what_is_held_does_not(
    caller: Caller, holder: Holder, reserver: Reserver
) -> None:
    await holder.put("b1", "100")
    await caller.create(alert("50", "20", low_remaining_commit_balance_reached=COMMITS))
    await reserver.hold(("r1", reserver.usage("60")), ("r2", reserver.usage("30")))
    await holder.spend("e1", "5")
    assert await holder.notified(0) == []
    [reached] = await reserver.settle("r1", reserver.usage("55"))
    assert reached.transition.previous_value == 95
    assert reached.transition.value == 40
    assert await reserver.settle("r2", reserver.usage("10")) == []
    assert await shown(holder) == {("b1", 1): (0, 70, 30)}
    [[first]] = await holder.notified(1)
    assert first == ShortTransition("REACHED", "50", "95", "40", "r1")
    entries = await holder.entries()
    assert [one.amount for one in entries] == ["100", "-5", "-55", "-10"]
    assert [one.remaining for one in entries] == ["100", "95", "40", "30"]
    assert {one.type for one in entries[1:]} == {balance_entry_pb2.BALANCE_ENTRY_TYPE_DRAW}


async def test_a_settlement_draws_from_the_segments_of_the_hold_first(holder: Holder, reserver: Reserver) -> None:
    await holder.put("late", "10", priority=5)
    await reserver.hold(("r1", reserver.usage("4")))
    await holder.put("early", "10", priority=1)
    await reserver.settle("r1", reserver.usage("6"))
    assert await shown(holder) == {("late", 1): (0, 4, 6), ("early", 1): (0, 2, 8)}


async def test_more_than_all_credit_is_overage(holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "10")
    await reserver.hold(("r1", reserver.usage("12")))
    await reserver.settle("r1", reserver.usage("15"))
    assert await shown(holder) == {("b1", 1): (0, 10, 0)}
    assert await holder.overage() == {"USD": 5}


async def test_an_overage_below_zero_is_held_once(caller: Caller, holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "0")
    await holder.spend("e1", "-5")
    await reserver.hold(("r1", reserver.usage("3")))
    [credit] = await reserver.available(reserver.usage("3"))
    assert credit.available == 2
    await holder.spend("e2", "3")  # it leaves what is held to the reservation
    request = account_service_pb2.ListOveragesRequest(customer_id="acme")
    [overage] = (await caller.accounts.ListOverages(request, metadata=caller.metadata)).overages
    assert (overage.amount, overage.held) == ("-2", "3")
    await reserver.settle("r1", reserver.usage("1"))
    [overage] = (await caller.accounts.ListOverages(request, metadata=caller.metadata)).overages
    assert (overage.amount, overage.held) == ("-1", "0")


@own_server
async def test_segments_end_while_they_are_held(
    caller: Caller, holder: Holder, reserver: Reserver, clock: ManualClock
) -> None:
    start = clock.now() - timedelta(days=1)
    end = clock.now() + timedelta(minutes=5)
    await holder.put("b1", spans=[("10", start, end)])
    await holder.put("b2", "10", priority=9)
    await caller.create(alert("5", low_remaining_commit_balance_reached=COMMITS))
    await reserver.hold(("r1", reserver.usage("6")), ("r2", reserver.usage("3")))
    before = clock.now()
    clock.set(end + timedelta(seconds=1))
    await reserver.settle("r1", reserver.usage("8", at=before))
    await reserver.release("r2")
    # Of the 2 that were not held, r1 took the 1 that its own time leaves it, and the balance that goes on gave 1.
    assert await shown(holder) == {("b1", 1): (0, 7, 3), ("b2", 1): (0, 1, 9)}
    assert [credit.available for credit in await reserver.available(reserver.usage("1"))] == [9]


async def test_a_voided_balance_keeps_its_holds(caller: Caller, holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "10")
    await caller.create(alert("5", low_remaining_commit_balance_reached=COMMITS))
    await reserver.hold(("r1", reserver.usage("4")), ("r2", reserver.usage("3")))
    await holder.void("b1")
    assert await reserver.available(reserver.usage("1")) == []
    assert await shown(holder) == {("b1", 1): (7, 0, 3)}
    assert await reserver.settle("r1", reserver.usage("5")) == []
    await reserver.release("r2")
    assert await shown(holder) == {("b1", 1): (0, 4, 6)}
    assert await holder.overage() == {"USD": 1}
    # Its ledger had ended at 0, and its gauges do not move again.
    assert [one.amount for one in await holder.entries()] == ["10", "-10"]
    assert len(await holder.notified(1)) == 1


async def test_a_put_and_adjustments_never_revoke_a_hold(holder: Holder, reserver: Reserver) -> None:
    now = holder.caller.clock.now()
    start = now - timedelta(days=1)
    await holder.put("b1", spans=[("10", start, None), ("10", start, None)])
    await reserver.hold(("r1", reserver.usage("14")))
    await holder.adjust("b1", "-7", segment=1)
    assert await shown(holder) == {("b1", 1): (10, 0, -7), ("b1", 2): (4, 0, 6)}
    await holder.put("b1", spans=[("10", start, None)])
    assert [credit.available for credit in await reserver.available(reserver.usage("1"))] == [0]
    await reserver.settle("r1", reserver.usage("12"))
    assert await shown(holder) == {("b1", 1): (0, 10, -7)}
    await holder.put("b1", spans=[("10", start, None), ("9", start, None)])
    assert await shown(holder) == {("b1", 1): (0, 10, -7), ("b1", 2): (0, 2, 7)}
    sums: dict[int, Decimal] = {}
    for entry in await holder.entries():
        sums[entry.segment_number] = sums.get(entry.segment_number, Decimal(0)) + Decimal(entry.amount)
    assert sums == {1: -7, 2: 7}


async def test_a_decrement_leaves_what_is_held(caller: Caller, holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "10", draw=True, kind=GRANT)
    await reserver.hold(("r1", reserver.usage("6")))
    request = account_service_pb2.DecrementBalancesRequest(customer_id="acme", adjustment_id="d1", amount="5")
    request.spend.currency = "USD"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.accounts.DecrementBalances(request, metadata=caller.metadata)
    assert "can give 4 now" in (refused.value.details() or "")
    request.amount = "3"
    answer = await caller.accounts.DecrementBalances(request, metadata=caller.metadata)
    assert answer.remaining == "1"
    assert [(one.amount, one.remaining, one.customer_remaining) for one in answer.entries] == [("-3", "7", "7")]
    replayed = await caller.accounts.DecrementBalances(request, metadata=caller.metadata)
    assert (replayed.remaining, replayed.replayed) == ("1", True)
    assert await shown(holder) == {("b1", 1): (6, 0, 1)}


async def test_voided_usage_leaves_what_is_held(caller: Caller, holder: Holder, reserver: Reserver) -> None:
    await holder.put("b1", "10", priority=1)
    await holder.put("b2", "10", priority=2)
    await holder.spend("e1", "6")
    await holder.spend("e2", "8")
    await reserver.hold(("r1", reserver.usage("3")))
    assert outcomes(await void(caller, "e1")) == ["VOIDED"]
    assert await shown(holder) == {("b1", 1): (0, 8, 2), ("b2", 1): (3, 0, 7)}
    await reserver.settle("r1", reserver.usage("3"))
    assert outcomes(await void(caller, "r1", "e2")) == ["VOIDED", "VOIDED"]
    assert await shown(holder) == {("b1", 1): (0, 0, 10), ("b2", 1): (0, 0, 10)}


async def test_credit_is_needed_where_a_balance_is_for_the_usage(holder: Holder, reserver: Reserver) -> None:
    """Not of other units, metrics and seats; a balance that overdraws gives any amount."""

    async def available(cost: str | None, quantity: str = "1", **about: str) -> dict[str, Decimal | None]:
        found = await reserver.available(reserver.usage(cost, quantity, **about))  # type: ignore[arg-type]
        return {one.unit.key: one.available for one in found}

    assert await available("3") == {}
    await holder.put("euros", "10", currency="EUR")
    await holder.put("gpu", "7", draw_down_metric_ids=["gpu"])
    await holder.put("ann", "4", kind=SEAT, seat=("user", "ann"))
    await holder.put("tokens", "9", metric="tokens")
    assert await available("3") == {}
    assert await available("3", metric="gpu") == {"cost/USD": 7}
    assert await available("3", user="bob") == {}
    assert await available("3", user="ann") == {"cost/USD": 4}
    assert await available("3", metric="gpu", user="ann") == {"cost/USD": 11}
    assert await available(None, "2", metric="tokens") == {"usage/tokens": 9}
    await holder.put("free", "0", allow_overage=True)
    assert await available("3") == {"cost/USD": None}


@own_server
async def test_no_credit_is_left_where_all_segments_have_ended(
    holder: Holder, reserver: Reserver, clock: ManualClock
) -> None:
    now = clock.now()
    await holder.put("b1", spans=[("10", now - timedelta(days=2), now - timedelta(days=1))])
    assert [one.available for one in await reserver.available(reserver.usage("1"))] == [0]
    assert [one.available for one in await reserver.available(reserver.usage("1", at=now - timedelta(days=2)))] == [
        10
    ]
    assert await reserver.hold(("r1", reserver.usage("1")), only_available=True) == []


async def test_an_exhausted_segment_gives_again_what_a_release_of_the_same_commit_frees(
    holder: Holder, reserver: Reserver
) -> None:
    await holder.put("b1", "5", priority=1)
    await holder.put("b2", "5", priority=2)
    await reserver.hold(("r1", reserver.usage("5")))
    await reserver.exchange("r1", ("r2", reserver.usage("4")))
    assert await shown(holder) == {("b1", 1): (4, 0, 1), ("b2", 1): (0, 0, 5)}
