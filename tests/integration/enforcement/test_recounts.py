"""When meters are counted from the events anew, and when not: a recount costs all customers below."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from generated.tidemark.v1 import customer_pb2, limit_pb2
from runtime.clock import ManualClock
from store.enforcement import meter_recounts
from store.identity.organizations import begin_change
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, Sender, put_limit, usage_event
from tests.support.usage.caller import Caller, waiting_for_locks
from tests.support.usage.voiding import key, void

NONE, SOFT = limit_pb2.LIMIT_ENFORCEMENT_NONE, limit_pb2.LIMIT_ENFORCEMENT_SOFT
HOURLY = {"calendar": {"unit": "CALENDAR_UNIT_HOUR"}}
ROLLING = {"rolling": {"duration": {"seconds": 3600}}}


@pytest.fixture
def recounts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the customers whose meters are counted anew."""
    found: list[str] = []
    recount = meter_recounts.recount

    async def noting(connection: Any, organization_id: int, wanted: Sequence[meter_recounts.MeterRecount]) -> Any:
        found.extend(one.meter.customer_id for one in wanted)
        return await recount(connection, organization_id, wanted)

    monkeypatch.setattr(meter_recounts, "recount", noting)
    return found


async def use(gateway: Gateway, number: int) -> int:
    """Reserves and settles one unit; returns what the limit has counted before."""
    await gateway.reserve(f"r{number}", "1")
    await gateway.settle(f"r{number}")
    decision = await gateway.check("0")
    assert decision.limit is not None
    return int(decision.limit.counted)


async def test_only_what_changes_which_usage_counts_needs_a_recount(
    caller: Caller, gateway: Gateway, clock: ManualClock, recounts: list[str]
) -> None:
    async def customer(customer_id: str, parent: str = "", **fields: Any) -> None:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer_id, parent_customer_id=parent, **fields))

    await customer("top")
    await customer("acme", "top")
    await put_limit(caller, "50", customer="top")
    assert await use(gateway, 1) == 1
    assert recounts == ["top"]
    # An amount, SOFT or HARD, a name, another limit, and a new customer below.
    await put_limit(caller, "5", customer="top")
    await put_limit(caller, "60", customer="top", enforcement=SOFT, display_name="ours")
    await put_limit(caller, "5", "of money", customer="top", currency="USD")
    await customer("new", "top", display_name="New")
    assert await use(gateway, 2) == 2
    assert recounts == ["top"]
    # Meanwhile usage did not count.
    await put_limit(caller, "60", customer="top", enforcement=NONE)
    await gateway.reserve("uncounted", "1")
    await gateway.settle("uncounted")
    await put_limit(caller, "60", customer="top")
    assert await use(gateway, 3) == 4
    assert recounts == ["top", "top"]
    await customer("new", "acme")  # it moves from below the top to below it
    assert await use(gateway, 4) == 5
    assert recounts == ["top"] * 3


@pytest.mark.parametrize("window", [HOURLY, ROLLING])
async def test_a_window_begins_at_zero_if_the_limit_stood_before_it(
    caller: Caller,
    gateway: Gateway,
    other: Gateway,
    sender: Sender,
    clock: ManualClock,
    recounts: list[str],
    window: dict[str, Any],
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme"))
    await put_limit(caller, "50", window=window)
    await sender.send(usage_event("e1", "2", at=NOON + timedelta(minutes=4)))
    assert recounts == ["acme"]
    clock.advance(timedelta(minutes=190))  # the customer and its limit have stood for two hours before the window
    assert await use(gateway, 1) == 1
    assert await use(other, 2) == 2
    assert recounts == ["acme"]
    # A change in the window: a customer of which the events of before may count now.
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    clock.advance(timedelta(minutes=50))
    assert await use(gateway, 3) == (1 if window == HOURLY else 3)
    assert recounts == ["acme", "acme"]


async def test_late_usage_and_voids_of_a_window_count_in_its_meter(
    caller: Caller, gateway: Gateway, sender: Sender, clock: ManualClock
) -> None:
    await put_limit(caller, "50", window=HOURLY)
    clock.advance(timedelta(hours=3))
    late = NOON + timedelta(hours=2, minutes=1)
    await sender.send(usage_event("late", "3", at=late), usage_event("now", "4", at=clock.now()))
    await void(caller, key("late", "acme", late))
    rows = await caller.rows(
        "SELECT counted FROM meter WHERE organization_id = %(organization_id)s ORDER BY window_start"
    )
    assert rows == [(Decimal(0),), (Decimal(4),)]


async def test_a_limit_that_a_server_of_the_previous_version_changed_is_counted_anew(
    caller: Caller, gateway: Gateway, recounts: list[str], own_pool: Database
) -> None:
    """That one does not keep up since when it has been enforced."""
    await put_limit(caller, "50")
    assert await use(gateway, 1) == 1
    await put_limit(caller, "60")
    async with own_pool.transaction() as connection:
        epoch = await begin_change(connection, gateway.organization.organization_id)
        await connection.execute(text("UPDATE usage_limit SET changed_epoch = :epoch, amount = 70"), {"epoch": epoch})
    assert recounts == []  # the customer was new
    assert await use(gateway, 2) == 2
    assert recounts == ["acme"]
    await put_limit(caller, "80")
    assert await use(gateway, 3) == 3
    assert recounts == ["acme"]


async def test_a_move_locks_those_above_in_the_order_of_their_ids(caller: Caller, clock: ManualClock) -> None:
    """So it waits for whatever else locks customers, and never in a circle."""
    names = ["c-top", "a-second", "d-third", "b-fourth"]
    for parent, name in itertools.pairwise(["", *names]):
        await caller.put_customer(customer_pb2.Customer(customer_id=name, parent_customer_id=parent))
    await caller.put_customer(customer_pb2.Customer(customer_id="z-moved"))
    lock = "SELECT customer_id FROM customer WHERE customer_id = %s FOR UPDATE"
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute(lock, ("a-second",))
        moved = customer_pb2.Customer(customer_id="z-moved", parent_customer_id="b-fourth")
        moving = asyncio.create_task(caller.put_customer(moved))
        await waiting_for_locks(caller)
        others = [name for name in names if name != "a-second"]
        found = [await (await connection.execute(f"{lock} SKIP LOCKED", (one,))).fetchone() for one in others]
        assert found == [(one,) for one in others]
    await moving
