"""Concurrent usage, reports and puts on two servers: never more than one open recharge, and no amount is lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import grpc
import pytest

from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.balances.recharging import NO_COOLDOWN, REQUESTED, Recharging
from tests.support.balances.timing import timers_of, work_off
from tests.support.server.running import reason_of
from tests.support.usage.caller import Caller, beside, calling

MANY = 150  # customers that one commit recharges


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """A caller of a second server on the same database."""
    async with beside(caller) as other:
        yield other


async def test_usage_on_two_servers_requests_one_recharge(caller: Caller, other: Caller) -> None:
    acme = Recharging(caller)
    await acme.put("prepaid", "50", allow_overage=True)
    await acme.put_policy()
    await asyncio.gather(
        *(
            Recharging(server).spend(f"{number}-{index}", "1")
            for number, server in enumerate((caller, other))
            for index in range(30)
        )
    )
    requested = await acme.open()
    assert Decimal(requested.remaining) < 20
    assert Decimal(requested.remaining) + Decimal(requested.amount) == 100
    assert await acme.notified_recharges() == [("requested", requested.recharge_id)]
    assert await acme.remaining() == {"prepaid": -10}


async def test_usage_reports_puts_and_timers_together_keep_the_ledger(
    caller: Caller, other: Caller, clock: ManualClock, database: Database
) -> None:
    """Whatever comes first, the balance is what was granted and paid less what was used."""
    acme = Recharging(caller)
    await acme.put("prepaid", "30", allow_overage=True)
    await acme.put_policy(failure_cooldown=NO_COOLDOWN, max_attempts=100)
    paid, refused = dict[str, Decimal](), list[str]()

    async def use(server: Caller, name: str) -> None:
        for index in range(25):
            await Recharging(server).spend(f"{name}-{index}", "3")

    async def report(server: Caller) -> None:
        theirs = Recharging(server)
        for index in range(25):
            for one in await theirs.recharges(REQUESTED):
                try:
                    if index % 3 == 0:
                        await theirs.failed(one.recharge_id)
                    else:
                        await theirs.paid(one.recharge_id)
                        paid[one.recharge_id] = Decimal(one.amount)
                except grpc.aio.AioRpcError as error:
                    refused.append(reason_of(error))  # the other server was faster
            await asyncio.sleep(0.005)

    async def put() -> None:
        for index in range(15):
            await acme.put_policy(failure_cooldown=NO_COOLDOWN, max_attempts=100, below=str(20 + index))

    async def time() -> None:
        timers = timers_of(database, clock)
        for _ in range(20):
            clock.advance(timedelta(days=1))
            await timers.sweep()

    await asyncio.gather(use(caller, "a"), use(other, "b"), report(caller), report(other), put(), time())
    await work_off(timers_of(database, clock), database, clock)
    assert set(refused) <= {"ERROR_REASON_RECHARGE_ENDED"}
    assert await acme.remaining() == {"prepaid": 30 + sum(paid.values()) - 150}
    recharges = await acme.recharges()
    assert [one.sequence for one in recharges] == list(range(1, len(recharges) + 1))
    assert len([one for one in recharges if one.state == REQUESTED]) <= 1
    notified = [recharge_id for kind, recharge_id in await acme.notified_recharges() if kind == "requested"]
    assert sorted(notified) == sorted(one.recharge_id for one in recharges)


async def test_a_restarted_server_goes_on_where_the_other_ended(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = Recharging(caller)
    await acme.put("prepaid", "10")
    await acme.put_policy(report_timeout=timedelta(hours=1))
    first = await acme.open()
    caller.server.shutdown.request()
    await caller.server.stopped
    clock.advance(timedelta(hours=3))
    async with calling(caller.database_url, clock, caller.organization, caller.key) as again:
        acme = Recharging(again)
        await work_off(timers_of(database, clock), database, clock)
        policy = await acme.get_policy()
        assert (policy.failed_attempts, policy.open_recharge_id) == (1, "")
        clock.advance(timedelta(hours=1))
        await work_off(timers_of(database, clock), database, clock)
        assert (await acme.open()).sequence == 2
        await acme.paid(first.recharge_id)
        assert await acme.remaining() == {"prepaid": 100}


async def test_one_commit_recharges_many_customers(caller: Caller) -> None:
    holders = [Recharging(caller, f"c{number:04}") for number in range(MANY)]

    async def prepare(holder: Recharging) -> None:
        await holder.put("prepaid", "50")
        await holder.put_policy(max_amount_per_period="1000", max_count_per_period=5)

    for start in range(0, MANY, 20):
        await asyncio.gather(*map(prepare, holders[start : start + 20]))
    events = [
        caller.event("e", "1", holder.customer, cost=str(31 + index % 9)) for index, holder in enumerate(holders)
    ]
    answer = await caller.send(*events)
    assert answer.accepted == MANY
    [[count, customers, amounts]] = await caller.rows(
        "SELECT count(*), count(DISTINCT customer_id), sum(amount + remaining) FROM recharge"
        " WHERE organization_id = %(organization_id)s AND state = 'REQUESTED'"
    )
    assert (count, customers, amounts) == (MANY, MANY, 100 * MANY)
    assert len(await caller.notifications()) == MANY
