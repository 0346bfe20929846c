"""Random changes of a balance against a plain model: the remaining amount, and a ledger that adds up to it."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import update

from evaluator.amounts import exact_arithmetic
from store.balances import balances, wallets
from store.balances import changes as balance_changes
from store.balances import entries as balance_entries
from store.balances.adjustments import Adjustment, adjust
from store.balances.balances import BalanceFact
from store.balances.entry_numbers import next_numbers
from store.postgres.database import Connection, Database, driver
from store.tables.balances import balance_segment
from tests.support.balances.facts import a_commit

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = ("acme", "b1")


def fact(amounts: list[Decimal], as_of_time: datetime) -> BalanceFact:
    return a_commit(amounts, NOW, as_of_time, draw_down=True, draw_down_metric_ids=("tokens",))


def some_amount(chance: random.Random) -> Decimal:
    return Decimal(chance.randint(0, 10**20)).scaleb(-chance.randint(0, 18))


@pytest.mark.parametrize("seed", range(5))
async def test_the_ledger_of_a_segment_adds_up_to_what_remains(shared: Database, org: int, seed: int) -> None:
    chance = random.Random(seed)
    put_amounts: list[Decimal] = []
    adjusted: dict[int, Decimal] = {}
    time = NOW
    with exact_arithmetic():
        async with shared.transaction() as connection:
            await wallets.lock(connection, org, ["acme"])
            for step in range(30):
                time += HOUR
                if step == 0 or chance.random() < 0.5:
                    put_amounts = [some_amount(chance) for _ in range(chance.randint(1, 4))]
                    await balance_changes.put(connection, org, fact(put_amounts, time), time)
                else:
                    number = chance.randint(1, len(put_amounts))
                    amount = some_amount(chance) * chance.choice((1, -1)) or Decimal(1)
                    await adjust(connection, org, Adjustment(*KEY, f"a{step}", amount, segment_number=number), time)
                    adjusted[number] = adjusted.get(number, Decimal(0)) + amount
                stored = await balances.get(connection, org, *KEY)
                assert stored is not None
                assert stored.fact == fact(put_amounts, stored.fact.as_of_time)
                expected = {
                    number: amount + adjusted.get(number, Decimal(0)) for number, amount in enumerate(put_amounts, 1)
                }
                remaining = {item.segment_number: item.remaining for item in stored.segments if not item.removed}
                assert remaining == expected
                gone = dict.fromkeys(range(1, len(stored.segments) + 1), Decimal(0))
                assert await sums(connection, org) == gone | expected
            await balance_changes.void(connection, org, *KEY, time)
            assert set((await sums(connection, org)).values()) == {Decimal(0)}


async def sums(connection: Connection, org: int) -> dict[int, Decimal]:
    """The sum of each segment's entries; it equals the remaining amount of the last entry."""
    entries = await balance_entries.list_page(connection, org, "acme", balance_id="b1", after=None, limit=1000)
    total: dict[int, Decimal] = {}
    for entry in entries:
        change = entry.change
        assert change.amount
        total[change.segment_number] = total.get(change.segment_number, Decimal(0)) + change.amount
        assert change.remaining == total[change.segment_number]
    return total


async def test_a_put_keeps_the_amounts_that_were_drawn(shared: Database, org: int) -> None:
    async with shared.transaction() as connection:
        await wallets.lock(connection, org, ["acme"])
        await balance_changes.put(connection, org, fact([Decimal(10), Decimal(5)], NOW), NOW)
        await connection.execute(update(balance_segment).values(drawn=Decimal("2.5")))
        shorter = await balance_changes.put(connection, org, fact([Decimal(2)], NOW + HOUR), NOW + HOUR)
        assert [(item.drawn, item.remaining, item.removed) for item in shorter.stored.segments] == [
            (Decimal("2.5"), Decimal("-0.5"), False),
            (Decimal("2.5"), Decimal("2.5"), True),
        ]
        longer = await balance_changes.put(connection, org, fact([Decimal(2), Decimal(6)], NOW + HOUR), NOW + HOUR)
        assert [item.remaining for item in longer.stored.segments] == [Decimal("-0.5"), Decimal("3.5")]
        assert await balances.get(connection, org, *KEY) == longer.stored


async def test_numbers_for_a_cluster_rise_with_each_entry_of_a_customer(shared: Database, org: int) -> None:
    customers = ["bob", "acme", "acme", "acme", "new"]
    balances_of = ["b1", "b2", "b1", "b2", "b1"]
    async with shared.transaction() as connection:
        await wallets.lock(connection, org, ["acme", "bob"])
        for time, (customer_id, balance_id) in enumerate([("acme", "b2"), ("bob", "b1"), ("acme", "b1")]):
            one = replace(fact([Decimal(5)], NOW), customer_id=customer_id, balance_id=balance_id)
            await balance_changes.put(connection, org, one, NOW + time * HOUR)
        raw = await driver(connection)
        last = {
            customer_id: max(one.entry_number for one in await entries_of(connection, org, customer_id))
            for customer_id in ("acme", "bob")
        }
        assert await next_numbers(raw, org, customers, balances_of) == [
            last["bob"] + 1,
            *(last["acme"] + number for number in (1, 2, 3)),
            1,
        ]
        assert await next_numbers(raw, org, ["acme"], ["b2"]) == [
            max(one.entry_number for one in await entries_of(connection, org, "acme", "b2")) + 1
        ]


async def entries_of(
    connection: Connection, org: int, customer_id: str, balance_id: str | None = None
) -> list[balance_entries.StoredEntry]:
    return await balance_entries.list_page(
        connection, org, customer_id, balance_id=balance_id, after=None, limit=1000
    )
