"""Limits that begin while reservations are open: these hold a part of them, and give back exactly that."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from engine.enforcement.expiry import Expiry
from engine.enforcement.requests import Release
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.events import SettlingEvent
from generated.tidemark.v1 import billing_period_pb2, customer_pb2, limit_pb2, metric_pb2, subscription_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, Sender, meters, put_limit, reserve, usage_event
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, until, waiting_for_locks
from tests.support.usage.service import GRACE
from tests.support.usage.voiding import key, outcomes, void

NONE, SOFT = limit_pb2.LIMIT_ENFORCEMENT_NONE, limit_pb2.LIMIT_ENFORCEMENT_SOFT
DAILY = {"calendar": {"unit": "CALENDAR_UNIT_DAY"}}
ROLLING = {"rolling": {"duration": {"seconds": 600}}}


async def put_customer(caller: Caller, customer_id: str, parent: str = "", **fields: object) -> None:
    customer = customer_pb2.Customer(customer_id=customer_id, parent_customer_id=parent, **fields)  # type: ignore[arg-type]
    await caller.put_customer(customer)


async def put_subscription(caller: Caller, plan: str) -> None:
    subscription = subscription_pb2.Subscription(customer_id="acme", subscription_id="main", plan_id=plan)
    await caller.put_subscription(subscription)


async def new_limit(caller: Caller) -> None:
    await put_limit(caller, "10")


async def limit_of_money(caller: Caller) -> None:
    await put_limit(caller, "10", currency="USD")


async def limit_of_a_region(caller: Caller) -> None:
    await put_limit(caller, "10", groups=[{"key": "region"}], window=ROLLING)


async def enforcement(caller: Caller) -> None:
    await put_limit(caller, "10", enforcement=NONE)
    await put_limit(caller, "10")


async def limit_of_the_top(caller: Caller) -> None:
    await put_limit(caller, "10", customer="org", window=ROLLING)


async def limit_of_a_plan(caller: Caller) -> None:
    await put_limit(caller, "10", plan="gold", window=DAILY)
    await put_customer(caller, "acme", "team", plan_id="gold")


async def subscription(caller: Caller) -> None:
    await put_limit(caller, "10", plan="gold")
    await put_subscription(caller, "gold")


async def own_limit_gone(caller: Caller) -> None:
    """The limit of the plan applies again, from which the customer's own one had exempted it."""
    await put_limit(caller, "10", plan="gold")
    await put_limit(caller, "10", "own", enforcement=NONE)
    await put_customer(caller, "acme", "team", plan_id="gold")
    await put_limit(caller, "10", "own", enforcement=SOFT)
    await put_limit(caller, "10", "own")


async def move(caller: Caller) -> None:
    await put_limit(caller, "10", customer="other")
    await put_customer(caller, "acme", "other")


async def move_of_the_parent(caller: Caller) -> None:
    await put_limit(caller, "10", customer="other")
    await put_customer(caller, "team", "other")


BEGINNINGS = [
    new_limit,
    limit_of_money,
    limit_of_a_region,
    enforcement,
    limit_of_the_top,
    limit_of_a_plan,
    subscription,
    own_limit_gone,
    move,
    move_of_the_parent,
]


@pytest.fixture
async def family(caller: Caller) -> None:
    await put_customer(caller, "org")
    await put_customer(caller, "team", "org")
    await put_customer(caller, "acme", "team")
    await put_customer(caller, "other")


def asked(**fields: str) -> dict[str, str]:
    return {"subscription": "main", "region": "eu", "cost": "0", **fields}


@shares_server
@pytest.mark.parametrize("begin", BEGINNINGS)
async def test_open_reservations_hold_a_part_of_a_limit_that_begins(
    caller: Caller,
    gateway: Gateway,
    other: Gateway,
    sender: Sender,
    family: None,
    begin: Callable[[Caller], Awaitable[None]],
) -> None:
    for name in ("settled", "released", "sent"):
        await gateway.reserve(name, "2", seconds=600, **asked(cost="2"))
    assert await meters(caller) == {}
    await begin(caller)
    refused = await other.reserve("large", "5", **asked(cost="5"))
    assert refused.decision is not None
    assert refused.decision.limit is not None
    assert refused.decision.is_denied
    assert refused.decision.limit.held == 6
    await other.reserve("small", "4", **asked(cost="4"))
    await gateway.settle("settled", "1", "1")
    await gateway.release("released")
    event = usage_event("e1", "2", cost="2", at=NOON, region="eu")._replace(subscription_id="main")
    await sender.send(SettlingEvent.of(event, "sent"))
    assert await shown(gateway) == (3, 4)
    await gateway.release("small")
    assert await shown(gateway) == (3, 0)
    assert {held for _, held in (await meters(caller)).values()} == {"0"}


async def shown(gateway: Gateway) -> tuple[int, int]:
    """Counted and held of the limit that leaves least."""
    decision = await gateway.check("0", **asked())
    assert decision.limit is not None
    return int(decision.limit.counted), int(decision.limit.held)


@shares_server
async def test_a_limit_of_another_window_or_unit_is_not_held(caller: Caller, gateway: Gateway) -> None:
    await gateway.reserve("yesterday", "5", at=NOON - timedelta(days=1), region="eu")
    await gateway.reserve("bytes", "5", metric="bytes", region="eu")
    await gateway.reserve("us", "5", region="us")
    await put_limit(caller, "10", groups=[{"key": "region", "value": "eu"}], window=DAILY)
    decision = await gateway.check("1", region="eu")
    assert decision.limit is not None
    assert decision.limit.held == 0
    assert not (await gateway.check("10", region="eu")).is_denied


@shares_server
async def test_each_open_event_is_held_of_a_metric_that_counts_events(caller: Caller, gateway: Gateway) -> None:
    await caller.put_metric("requests", metric_pb2.AGGREGATION_COUNT)
    for number in range(3):
        await gateway.reserve(f"r{number}", "7", metric="requests", seconds=600)
    await put_limit(caller, "4", metric="requests")
    assert not (await gateway.reserve("r3", "7", metric="requests")).decision.is_denied  # type: ignore[union-attr]
    assert (await gateway.reserve("r4", "7", metric="requests")).decision.is_denied  # type: ignore[union-attr]
    await gateway.settle("r0")
    assert (await meters(caller))["acme", "usage/requests", "BILLING_PERIOD"] == ("1", "3")


@shares_server
async def test_reservations_are_held_in_the_windows_of_another_time_zone(caller: Caller, gateway: Gateway) -> None:
    """A day of the other zone begins at 18:30 UTC, so it contains the reservation, and no usage of the morning."""
    await put_limit(caller, "10", window=DAILY)
    await gateway.reserve("a", "6", at=NOON, seconds=600)
    zone = billing_period_pb2.BillingCycle(
        cadence=billing_period_pb2.CADENCE_MONTH, interval_count=1, time_zone="Asia/Kolkata"
    )
    zone.anchor_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    await put_customer(caller, "acme", billing_cycle=zone)
    assert (await gateway.reserve("b", "5", at=NOON)).decision.is_denied  # type: ignore[union-attr]
    await gateway.settle("a", "2")
    rows = await caller.rows(
        "SELECT trim_scale(counted)::text, trim_scale(held)::text FROM meter"
        " WHERE organization_id = %(organization_id)s ORDER BY counted"
    )
    assert rows == [("0", "0"), ("2", "0")]


@pytest.mark.parametrize("turn", range(2))
async def test_what_ends_while_a_limit_begins_leaves_nothing_held(
    caller: Caller,
    gateway: Gateway,
    other: Gateway,
    sender: Sender,
    family: None,
    own_pool: Database,
    clock: ManualClock,
    turn: int,
) -> None:
    """Two servers, usage that settles, and the expiry end reservations of many, while two limits above begin."""
    users = [f"user{number}" for number in range(8)]
    for user in users:
        await put_customer(caller, user, "team")
        for name, seconds in (("settled", 600), ("released", 600), ("sent", 600), ("kept", 600), ("expires", 1)):
            await gateway.reserve(name, "1", customer=user, cost="1", seconds=seconds)
    clock.advance(timedelta(seconds=6))
    expiry = Expiry(own_pool, clock, Transactions(own_pool, clock, GRACE, RulesRegistry()))
    await put_limit(caller, "1000", "of-org", customer="org")
    await put_limit(caller, "1000", "of-team", customer="team", currency="USD")
    work: list[Awaitable[object]] = [expiry.sweep()]
    for number, user in enumerate(users):
        one, two = (gateway, other) if (number + turn) % 2 else (other, gateway)
        event = SettlingEvent.of(usage_event(f"e-{user}", "1", customer=user, cost="1"), "sent")
        work += [one.settle("settled", customer=user), two.release("released", customer=user), sender.send(event)]
        work += [two.ask(reserve("nothing", "0", customer=user, cost="0"), Release(user, "nothing"))]
    await asyncio.gather(*work)
    clock.advance(timedelta(seconds=1))

    async def none_is_due() -> bool:
        await expiry.sweep()
        return (await meters(caller)).get(("org", "usage/calls", "BILLING_PERIOD")) == ("16", "8")

    await until(none_is_due)
    assert (await meters(caller))["team", "cost/USD", "BILLING_PERIOD"] == ("16", "8")
    for user in users:
        await gateway.release("kept", customer=user)
    assert {held for _, held in (await meters(caller)).values()} == {"0"}


async def test_a_limit_that_begins_while_a_reservation_expires_gets_its_part_back(
    caller: Caller, gateway: Gateway, family: None, own_pool: Database, clock: ManualClock
) -> None:
    """The expiry has read what the reservation holds, and waits for its customer; meanwhile that gets more."""
    await gateway.reserve("a", "2", seconds=1)
    await put_limit(caller, "10", customer="org")
    expiry = Expiry(own_pool, clock, Transactions(own_pool, clock, GRACE, RulesRegistry()))
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        await connection.execute("SELECT FROM wallet WHERE customer_id = 'acme' FOR UPDATE")
        clock.advance(timedelta(seconds=6))
        sweep = asyncio.create_task(expiry.sweep())
        await waiting_for_locks(caller)
        await gateway.store_meters("org")
        decision = await gateway.check("1", customer="org")
        assert decision.limit is not None
        assert decision.limit.held == 2
    await sweep

    async def is_given_back() -> bool:
        await expiry.sweep()
        return set((await meters(caller)).values()) == {("0", "0")}

    await until(is_given_back)


async def test_a_duplicate_leaves_meters_as_they_should_be(
    caller: Caller, gateway: Gateway, sender: Sender, clock: ManualClock
) -> None:
    """Its transaction counts a new meter, and lets a window go on, and stores nothing else."""
    event = usage_event("e1", "3")
    await put_limit(caller, "10", "rolling", window=ROLLING)
    await sender.send(event)
    await gateway.reserve("a", "2", seconds=3600)
    await put_limit(caller, "10")
    clock.advance(timedelta(minutes=11))
    assert (await sender.send(event)).accepted == 0
    await gateway.release("a")
    await gateway.check("0")
    assert await meters(caller) == {
        ("acme", "usage/calls", "ROLLING"): ("0", "0"),
        ("acme", "usage/calls", "BILLING_PERIOD"): ("3", "0"),
    }


async def test_a_void_that_comes_too_late_leaves_meters_as_they_should_be(
    caller: Caller, gateway: Gateway, sender: Sender, clock: ManualClock
) -> None:
    await put_limit(caller, "10", "rolling", window=ROLLING)
    await sender.send(usage_event("e1", "3"))
    clock.advance(timedelta(days=80))
    assert outcomes(await void(caller, key("e1", "acme", NOON))) == ["TOO_OLD"]
    await gateway.check("0")
    assert (await meters(caller))["acme", "usage/calls", "ROLLING"] == ("0", "0")
