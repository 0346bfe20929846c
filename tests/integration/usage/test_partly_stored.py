"""Many events of which some are stored already: the others are stored by COPY where that is possible."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from evaluator.events import UsageEvent
from runtime.turns import Slices
from store.postgres.database import Database, DriverConnection
from store.usage import events as stored_events
from store.usage import partly_stored
from store.usage.events import DuplicateEvents
from store.usage.partly_stored import PartlyStored
from tests.support.databases import NOON
from tests.support.postgres.lock_waits import WAITING_SESSIONS
from tests.support.postgres.only_one_server import names_rows_of_copy
from tests.support.usage.caller import until

COPIED, INSERTED = 40, 10  # events of one COPY and of one INSERT in these tests
EVENTS = [
    UsageEvent(f"e{number:03d}", f"c{number % 3}", NOON, "calls", Decimal(number), None, None, None, {})
    for number in range(150)
]
IN_ORDER = sorted(EVENTS, key=lambda event: event.identity)
Identity = tuple[str, str]


@pytest.fixture(params=[True, False], ids=["native", "python"])
def native(request: pytest.FixtureRequest) -> bool:
    """How the rows of COPY are written."""
    return bool(request.param)


@pytest.fixture
def inserted(monkeypatch: pytest.MonkeyPatch) -> list[Identity]:
    """The events that went through INSERT."""
    found = list[Identity]()
    insert = stored_events.insert

    async def inserting(*arguments: Any) -> Any:
        found.extend(event.identity for event in arguments[-1])
        return await insert(*arguments)

    monkeypatch.setattr(stored_events, "insert", inserting)
    monkeypatch.setattr(partly_stored, "COPIED_AT_ONCE", COPIED)
    monkeypatch.setattr(partly_stored, "ROWS_AT_ONCE", INSERTED)
    return found


async def first_duplicate(connection: DriverConnection, *, native: bool) -> int:
    """Where COPY of all events finds the first one that is stored."""
    with pytest.raises(DuplicateEvents) as found:
        async with connection.transaction():
            await stored_events.copy(connection, stored_events.copy_text(1, NOON, EVENTS, native=native))
    assert found.value.row is not None
    return found.value.row


async def store(connection: DriverConnection, row: int, *, native: bool = True) -> set[Identity]:
    return await PartlyStored(connection, 1, NOON, row, Slices(1), native).store(EVENTS)


async def stored(connection: DriverConnection) -> list[Identity]:
    cursor = await connection.execute("SELECT customer_id, event_id FROM event ORDER BY customer_id, event_id")
    return [(row[0], row[1]) for row in await cursor.fetchall()]


@names_rows_of_copy
@pytest.mark.parametrize(
    "before",
    [
        [0],
        [149],
        [75],
        [0, 149],
        [9, 10],
        [39, 40, 41],
        [5, 50, 90, 130],
        range(30, 60),
        range(0, 150, 2),
        range(150),
    ],
    ids=str,
)
async def test_events_that_are_not_stored_yet_are_stored_once(
    database: Database, inserted: list[Identity], before: Sequence[int], native: bool
) -> None:
    duplicates = {IN_ORDER[number].identity for number in before}
    async with database.raw_transaction() as connection:
        await connection.execute("SELECT 1")
        text = stored_events.copy_text(1, NOON, [IN_ORDER[number] for number in before])
        await stored_events.copy(connection, text)
        row = await first_duplicate(connection, native=native)
        assert row == min(before)
        assert await store(connection, row, native=native) == duplicates
        assert await stored(connection) == [event.identity for event in IN_ORDER]
    assert duplicates <= set(inserted)
    if len(before) < partly_stored.MOST_FAILURES:
        assert len(inserted) <= INSERTED * len(before), "the others are copied"


async def test_wrong_row_changes_only_the_way(database: Database, inserted: list[Identity]) -> None:
    """As after a void, or when another server stored an event meanwhile."""
    for row in (0, 20, 149, 1_000):
        async with database.raw_transaction() as connection:
            await connection.execute("DELETE FROM event")
            await stored_events.copy(connection, stored_events.copy_text(1, NOON, [IN_ORDER[20]]))
            assert await store(connection, row) == {IN_ORDER[20].identity}
            assert await stored(connection) == [event.identity for event in IN_ORDER]
    async with database.raw_transaction() as connection:
        await connection.execute("DELETE FROM event")
        assert await store(connection, 20) == set()
        assert await stored(connection) == [event.identity for event in IN_ORDER]


def test_row_that_the_server_does_not_name_is_not_guessed() -> None:
    """Its messages can be in any language, and Citus has its own."""
    for context, row in (
        ("COPY event, line 12", 11),
        ("COPY event, Zeile 12: »1\tacme«", 11),
        ("event のCOPY、12行目", None),
        ("while executing command on node 2", None),
        (None, None),
    ):
        assert stored_events.row_of(context) == row


@pytest.mark.parametrize("is_kept", [True, False])
async def test_event_of_an_open_transaction_is_waited_for(
    database: Database, inserted: list[Identity], is_kept: bool
) -> None:
    """It is a duplicate if that transaction commits."""
    async with database.raw_transaction() as connection:
        await stored_events.copy(connection, stored_events.copy_text(1, NOON, [IN_ORDER[2]]))
    async with database.raw_transaction() as connection:
        async with database.raw_transaction() as other:
            await stored_events.copy(other, stored_events.copy_text(1, NOON, [IN_ORDER[80]]))
            storing = asyncio.create_task(store(connection, 2))
            await _waits_for_a_lock(database)
            if not is_kept:
                await other.rollback()
        expected = {IN_ORDER[number].identity for number in ((2, 80) if is_kept else (2,))}
        assert await storing == expected
        assert await stored(connection) == [event.identity for event in IN_ORDER]


async def _waits_for_a_lock(database: Database) -> None:
    """Waits until a connection to the database waits for a lock."""

    async def waiting() -> bool:
        # A transaction of its own: within one, PostgreSQL shows the same activity again.
        async with database.raw_transaction() as connection:
            cursor = await connection.execute(WAITING_SESSIONS.encode())
            return bool((await cursor.fetchall())[0][0])

    await until(waiting)
