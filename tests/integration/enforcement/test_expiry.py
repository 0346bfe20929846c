"""Expiry: what reservations hold is given back at the end of their grace, once, whatever process notices it."""

import asyncio
from datetime import timedelta

import pytest

from engine.enforcement.expiry import Expiry
from engine.limits import EnforcementLimits
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.enforcement.decisions import Outcome
from evaluator.enforcement.reservations import GRACE, ReservationState
from generated.tidemark.v1 import customer_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, meters, put_limit
from tests.support.usage.caller import Caller, until
from tests.support.usage.service import GRACE as GRACE_OF_PERIODS

CALLS = "acme", "usage/calls", "BILLING_PERIOD"
MOMENT = timedelta(microseconds=1)


@pytest.fixture
def expiry(own_pool: Database, clock: ManualClock) -> Expiry:
    """The task of one server, which the test runs; it works on three reservations at a time."""
    return make(own_pool, clock)


def make(database: Database, clock: ManualClock) -> Expiry:
    transactions = Transactions(database, clock, GRACE_OF_PERIODS, RulesRegistry())
    return Expiry(database, clock, transactions, limits=EnforcementLimits(expiries=3, sweep=5))


async def finished(caller: Caller, expiry: Expiry, expired: int) -> None:
    """Sweeps until so many are expired: the server of the caller does it, too, and then this one waits for it."""

    async def done() -> bool:
        await expiry.sweep()
        return (await states(caller)).count("EXPIRED") >= expired

    await until(done)


async def states(caller: Caller) -> list[str]:
    rows = await caller.rows(
        "SELECT state FROM reservation WHERE organization_id = %(organization_id)s ORDER BY reservation_id"
    )
    return [state for (state,) in rows]


async def test_it_gives_back_at_the_end_of_the_grace(
    caller: Caller, gateway: Gateway, clock: ManualClock, expiry: Expiry
) -> None:
    await put_limit(caller, "100")
    for number in range(10):
        await gateway.reserve(f"r{number}", "10", seconds=10 + number)
    await expiry.sweep()
    clock.advance(timedelta(seconds=10) + GRACE - MOMENT)
    assert await expiry.sweep() == pytest.approx(1e-6)
    assert await states(caller) == ["OPEN"] * 10
    clock.advance(MOMENT)
    await finished(caller, expiry, 1)
    assert await states(caller) == ["EXPIRED"] + ["OPEN"] * 9
    assert (await meters(caller))[CALLS] == ("0", "90")
    clock.advance(timedelta(seconds=60))
    await finished(caller, expiry, 10)
    assert await states(caller) == ["EXPIRED"] * 10
    assert (await meters(caller))[CALLS] == ("0", "0")
    assert (await gateway.check("100")).outcome is Outcome.ALLOWED
    late = await gateway.settle("r0", "5")
    assert late.reservation is not None
    assert (late.reservation.state, late.reservation.late) == (ReservationState.EXPIRED, True)
    assert (await meters(caller))[CALLS] == ("5", "0")


async def test_two_servers_give_back_once(
    caller: Caller, gateway: Gateway, clock: ManualClock, expiry: Expiry, own_pool: Database
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="parent"))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="parent"))
    await put_limit(caller, "100", customer="parent")
    for number in range(20):
        await gateway.reserve(f"r{number:02}", "1", seconds=1)
    clock.advance(timedelta(minutes=1))
    other = make(own_pool, clock)
    settled = [gateway.settle(f"r{number:02}") for number in range(5)]
    await asyncio.gather(expiry.sweep(), other.sweep(), *settled)
    while "OPEN" in await states(caller):
        await asyncio.gather(expiry.sweep(), other.sweep())
    assert await states(caller) == ["EXPIRED"] * 20
    assert (await meters(caller))["parent", "usage/calls", "BILLING_PERIOD"] == ("5", "0")


async def test_a_released_hold_leaves_a_gap_of_its_meter_open(
    caller: Caller, gateway: Gateway, clock: ManualClock, expiry: Expiry
) -> None:
    await put_limit(caller, "100")
    await gateway.reserve("a", "10", seconds=1)
    await put_limit(caller, "")
    await caller.send(caller.event("missed", "7"))
    await put_limit(caller, "100")
    clock.advance(timedelta(minutes=1))
    await finished(caller, expiry, 1)
    assert (await meters(caller))[CALLS] == ("0", "0")
    assert (await gateway.check("94")).outcome is Outcome.DENIED
    await gateway.reserve("b", "1")
    assert (await meters(caller))[CALLS] == ("7", "1")
