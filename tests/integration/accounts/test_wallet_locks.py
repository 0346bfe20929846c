"""Locks of wallets: one transaction at a time holds a wallet, and transactions that lock several do not deadlock."""

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import func, select

from store.balances import balances, wallets
from store.balances import changes as balance_changes
from store.balances.adjustments import Adjustment, adjust
from store.identity import organizations
from store.postgres.database import Database
from store.tables.wallets import wallet
from tests.support.balances.facts import a_commit

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


async def test_concurrent_locks_of_several_wallets_do_not_deadlock(shared: Database, org: int) -> None:
    chance = random.Random(7)
    inside: set[str] = set()

    async def hold_some() -> None:
        for _ in range(15):
            wanted = chance.sample([f"c{number}" for number in range(40)], 5)
            async with shared.transaction() as connection:
                await wallets.lock(connection, org, wanted)
                assert not inside.intersection(wanted)
                inside.update(wanted)
                await asyncio.sleep(0)
                inside.difference_update(wanted)

    await asyncio.gather(*(hold_some() for _ in range(8)))
    async with shared.transaction() as connection:
        count = select(func.count()).where(wallet.c.organization_id == org)
        assert await connection.scalar(count) in range(5, 41)


async def test_wallets_of_two_organizations_are_locked_separately(shared: Database, org: int) -> None:
    async with shared.transaction() as connection:
        other = await organizations.get_or_create(connection, "another", NOW)
    async with shared.transaction() as ours, shared.transaction() as theirs:
        await wallets.lock(ours, org, ["acme"])
        await wallets.lock(theirs, other, ["acme"])


async def test_a_read_of_a_balance_and_its_segments_is_one_snapshot(shared: Database, org: int) -> None:
    fact = a_commit([Decimal(10)], NOW, NOW)
    async with shared.transaction() as writer:
        await wallets.lock(writer, org, ["acme"])
        put = await balance_changes.put(writer, org, fact, NOW)
    async with shared.transaction() as reader:
        await balances.read_one_snapshot(reader)
        first = await balances.get(reader, org, "acme", "b1")
        async with shared.transaction() as writer:
            await wallets.lock(writer, org, ["acme"])
            await adjust(writer, org, Adjustment("acme", "b1", "a1", amount=Decimal(1), segment_number=1), NOW)
        assert await balances.get(reader, org, "acme", "b1") == first == put.stored
    async with shared.transaction() as reader:
        later = await balances.get(reader, org, "acme", "b1")
    assert later is not None
    assert later.segments[0].remaining == 11
