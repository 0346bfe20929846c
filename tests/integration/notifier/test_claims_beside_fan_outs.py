"""Claims, while a fan-out to the same endpoints is open: they wait for no transaction that changes or locks these.

Gates stop a claim at two places: when it has begun and has locked no endpoint yet, and when it has locked one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import TextClause, text

from store.deliveries import leases, outbox
from store.deliveries.claims import Claim
from store.endpoints import lifecycle
from store.postgres.database import Connection, Database
from tests.support.notifier.delivery_queue import claim, counters_match, delivered, fan_out, record
from tests.support.notifier.house import House
from tests.support.server.sharing import own_database
from tests.support.waiting import DEADLINE, within

pytestmark = own_database

# The trigger of the statement runs when a claim has its snapshot, and before it reads or locks a row. The trigger of
# the row runs when the endpoint of the lease is locked.
_TRIGGERS = """
CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock_shared(CAST(TG_ARGV[0] AS integer));
    PERFORM pg_advisory_unlock_shared(CAST(TG_ARGV[0] AS integer));
    RETURN NEW;
END $$;
CREATE TRIGGER begun BEFORE UPDATE ON delivery_live FOR EACH STATEMENT EXECUTE FUNCTION pass_gate(1);
CREATE TRIGGER locked BEFORE UPDATE ON delivery_live
    FOR EACH ROW WHEN (NEW.lease_token IS NOT NULL) EXECUTE FUNCTION pass_gate(2);
"""
BEGUN, LOCKED = 1, 2

_AT_GATE = text("""
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND locktype = 'advisory' AND objid = :gate AND NOT granted
)
""")
_AT_ROW = text("""
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND locktype IN ('transactionid', 'tuple') AND NOT granted
)
""")


class Gates:
    """Gates that are open at first; a session that arrives at a closed one waits."""

    def __init__(self, connection: psycopg.AsyncConnection, database: Database) -> None:
        self._connection = connection
        self._database = database

    async def close(self, *gates: int) -> None:
        for gate in gates:
            await self._run("SELECT pg_advisory_lock(%s)", gate)

    async def open(self, gate: int) -> None:
        await self._run("SELECT pg_advisory_unlock(%s)", gate)

    async def until_one_waits(self, gate: int) -> None:
        """Waits until a session waits at a gate."""
        await self._until(f"a session at gate {gate}", _AT_GATE, gate=gate)

    async def until_one_waits_for_a_row(self) -> None:
        """Waits until a session waits for the lock of a row."""
        await self._until("a session that waits for a row", _AT_ROW)

    async def _run(self, statement: LiteralString, gate: int) -> None:
        await self._connection.execute(statement, (gate,))

    async def _until(self, missing: str, condition: TextClause, **parameters: int) -> None:
        async with within(missing):
            while True:
                async with self._database.transaction() as connection:
                    if await connection.scalar(condition, parameters):
                        return
                await asyncio.sleep(0.01)


@pytest.fixture
async def house(house: House, database_url: str) -> AsyncIterator[House]:
    """The organization, with connections that wait for a lock as long as a test may take."""
    database = Database(database_url, lock_timeout=2 * DEADLINE)
    yield House(database, house.clock, house.organization_id)
    await database.close()


@pytest.fixture
async def gates(house: House, database_url: str) -> AsyncIterator[Gates]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(_TRIGGERS)
        yield Gates(connection, house.database)


@pytest.fixture
async def leased(house: House) -> dict[str, list[Claim]]:
    """The claims of two endpoints, in the order of their ids. Each has two, and a third delivery that is due."""
    for number in range(2):
        await house.endpoint(f"https://example.com/{number}")
    await house.notify(2)
    await fan_out(house)
    found = await claim(house)
    await house.notify()
    await fan_out(house)
    endpoints = sorted({one.endpoint_id for one in found})
    return {endpoint_id: [one for one in found if one.endpoint_id == endpoint_id] for endpoint_id in endpoints}


async def stay_open(connection: Connection) -> None:
    """Lets a transaction of the queue wait for the test, however slow it is."""
    await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


async def begin_fan_out(stack: AsyncExitStack, house: House) -> None:
    """A fan-out to both endpoints, which is open until the end of the stack."""
    await house.notify()
    fanning = await stack.enter_async_context(house.database.transaction())
    assert (await outbox.fan_out(fanning, 10)).created == 2
    await stay_open(fanning)


async def begin_change(stack: AsyncExitStack, house: House, claim: Claim) -> None:
    """Gives a claim back, which changes its endpoint at the end of the stack."""
    changing = await stack.enter_async_context(house.database.transaction())
    await leases.release(changing, [claim], delay=timedelta(0))
    await stay_open(changing)


async def begin_lock(stack: AsyncExitStack, house: House, endpoint_id: str) -> None:
    """Locks an endpoint until the end of the stack."""
    locking = await stack.enter_async_context(house.database.transaction())
    await lifecycle.lock(locking, house.organization_id, endpoint_id)
    await stay_open(locking)


async def test_claim_and_results_never_deadlock_over_an_endpoint_that_changed_after_both_had_begun(
    house: House, gates: Gates, leased: dict[str, list[Claim]]
) -> None:
    first, second = leased
    async with (
        AsyncExitStack() as fan_out_ends,
        AsyncExitStack() as first_is_free,
        AsyncExitStack() as second_changes,
    ):
        await begin_fan_out(fan_out_ends, house)
        await begin_change(second_changes, house, leased[second][0])
        await begin_lock(first_is_free, house, first)
        results = [delivered(leased[first][0]), delivered(leased[second][1])]
        recording = asyncio.create_task(record(house, results))
        await gates.until_one_waits_for_a_row()
        await gates.close(BEGUN, LOCKED)
        claiming = asyncio.create_task(claim(house))
        await gates.until_one_waits(BEGUN)
        await second_changes.aclose()
        await gates.open(BEGUN)
        await gates.until_one_waits(LOCKED)
        await first_is_free.aclose()
        await gates.until_one_waits_for_a_row()
        await gates.open(LOCKED)
        async with within("the claim and the results"):
            found, recorded = await asyncio.gather(claiming, recording)
    assert {one.endpoint_id for one in found} == {second}
    assert len(recorded) == 2
    assert await counters_match(house)


async def test_claim_skips_a_locked_endpoint_that_changed_after_the_claim_had_begun(
    house: House, gates: Gates, leased: dict[str, list[Claim]]
) -> None:
    first, second = leased
    async with (
        AsyncExitStack() as fan_out_ends,
        AsyncExitStack() as second_is_free,
        AsyncExitStack() as second_changes,
    ):
        await begin_fan_out(fan_out_ends, house)
        await begin_change(second_changes, house, leased[second][0])
        await gates.close(BEGUN)
        claiming = asyncio.create_task(claim(house))
        await gates.until_one_waits(BEGUN)
        await second_changes.aclose()
        await begin_lock(second_is_free, house, second)
        await gates.open(BEGUN)
        async with within("the claim"):
            found = await claiming
    assert {one.endpoint_id for one in found} == {first}
    assert await counters_match(house)
