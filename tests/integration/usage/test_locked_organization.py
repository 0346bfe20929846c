"""While one organization is locked, backfills and timers of other organizations continue."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from engine.backfill.backfills import Backfills
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from runtime.clock import ManualClock
from store.balances.wallet_timers import DueTimer
from store.postgres.database import Database
from tests.support.balances.timing import timers_of
from tests.support.usage.caller import Caller, calling, ingest_held, usage_alert
from tests.support.usage.organizations import organization


@pytest.fixture
async def pair(database_url: str, clock: ManualClock) -> AsyncIterator[tuple[Caller, Caller]]:
    """Callers of two organizations, in the order in which background work serves them."""
    first, second = await organization(database_url, clock), await organization(database_url, clock)
    async with calling(database_url, clock, *first) as locked, calling(database_url, clock, *second) as free:
        yield locked, free


async def test_backfill_does_not_wait_for_a_locked_organization(
    pair: tuple[Caller, Caller], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, free = pair

    async def no_backfills(_: Backfills) -> bool:
        return False

    run_once = Backfills.run_once
    monkeypatch.setattr(Backfills, "run_once", no_backfills)
    for caller in pair:
        await caller.send(caller.event("e1", "15"))
        for _ in range(3):
            await caller.create_only(usage_alert("10"))
    database = Database(free.database_url, pool_size=1, lock_timeout=0.1)
    backfills = Backfills(database, clock, Transactions(database, clock, timedelta(days=34), RulesRegistry()))
    try:
        async with ingest_held(locked):
            assert await run_once(backfills)
            assert len(await free.notifications()) == 3
            assert await locked.notifications() == []
        while await run_once(backfills):
            pass
        assert len(await locked.notifications()) == 3
    finally:
        await database.close()


async def test_timers_postpone_the_customers_of_a_locked_organization(
    pair: tuple[Caller, Caller], clock: ManualClock
) -> None:
    locked, free = pair
    database = Database(free.database_url, pool_size=1, lock_timeout=0.1)
    timers = timers_of(database, clock)
    try:
        [[first]] = await locked.rows("SELECT %(organization_id)s")
        [[second]] = await free.rows("SELECT %(organization_id)s")
        due = [
            DueTimer(int(number), "x", f"customer-{place}", clock.now())
            for number in (first, second)
            for place in (1, 2)
        ]
        async with ingest_held(locked):
            async with asyncio.timeout(60):
                assert await timers._work_off(due[:2]) == 0
                assert await timers._work_off(due[2:]) == 0  # the customer does not exist, and nothing fails
        assert timers._put_off.keys() == {(int(first), "customer-1"), (int(first), "customer-2")}
    finally:
        await database.close()
