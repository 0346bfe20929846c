"""Wallets: the lock on everything that a customer holds and owes, and when time will next change any of it.

Whoever reads a customer's balances or invoices in order to change them, or what follows from them, holds the
customer's wallet. In the order of all locks it comes after those of organizations, of what is created on first
sight, and of events, and before those of balances, invoices and gauges.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from evaluator.balances import Unit
from store.postgres.database import Connection, Row, driver

# Two statements, and all of the first before any of the second: whoever waits in the second has passed the first,
# and so waits for nobody's new row while it holds an old one that the other wants.
_CREATE = """
INSERT INTO wallet (organization_id, customer_id)
SELECT %(organization_id)s, id FROM unnest(%(ids)s::text[]) AS i (id)
ON CONFLICT DO NOTHING
"""
_LOCK = """
SELECT customer_id, draw_units, seat_keys, due_time, read_time FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
ORDER BY customer_id FOR UPDATE
"""
_LOCK_DRAWING = """
SELECT customer_id, draw_units, seat_keys, due_time, read_time FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s) AND draw_units <> '{}'
ORDER BY customer_id FOR UPDATE
"""


@dataclass(frozen=True)
class Wallet:
    """A wallet that is held.

    draw_units: the keys of the units in which the customer has had balances that usage draws on. seat_keys: the
    properties that name the seats among those. due_time: when time next changes what alerts read of the customer;
    unset: never. read_time: as of when they last read it.
    """

    customer_id: str
    draw_units: frozenset[str]
    seat_keys: tuple[str, ...]
    due_time: datetime | None
    read_time: datetime | None

    def moment(self, now: datetime) -> datetime:
        """As of when to look at the customer: now, or later where somebody with a faster clock has looked already."""
        return now if self.read_time is None else max(now, self.read_time)

    @classmethod
    def of_row(cls, row: Row) -> "Wallet":
        """The wallet in a row of the columns above."""
        customer_id, draw_units, seat_keys, *times = row
        return cls(customer_id, frozenset(draw_units), tuple(seat_keys), *times)


async def lock(connection: Connection, organization_id: int, customer_ids: Iterable[str]) -> dict[str, Wallet]:
    """Holds the wallets of these customers until the transaction ends; waits for whoever holds one."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "ids": sorted(set(customer_ids))}
    async with raw.pipeline():
        await raw.execute(_CREATE, parameters)
        cursor = await raw.execute(_LOCK, parameters)
    return {row[0]: Wallet.of_row(row) for row in await cursor.fetchall()}


async def lock_drawing(
    connection: Connection, organization_id: int, customer_ids: Iterable[str]
) -> dict[str, Wallet]:
    """Holds those of the customers' wallets that usage draws on; the others are left alone."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "ids": sorted(set(customer_ids))}
    cursor = await raw.execute(_LOCK_DRAWING, parameters)
    return {row[0]: Wallet.of_row(row) for row in await cursor.fetchall()}


_EXPECT_DRAWS = """
UPDATE wallet SET
    draw_units = CASE WHEN %(unit)s = ANY(draw_units) THEN draw_units ELSE draw_units || %(unit)s::text END,
    seat_keys = CASE WHEN %(key)s::text IS NULL OR %(key)s = ANY(seat_keys) THEN seat_keys
        ELSE seat_keys || %(key)s::text END
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s
    AND NOT (%(unit)s = ANY(draw_units) AND (%(key)s::text IS NULL OR %(key)s = ANY(seat_keys)))
"""


async def expect_draws(
    connection: Connection, organization_id: int, customer_id: str, unit: Unit, seat_key: str | None
) -> None:
    """Says that usage in a unit may draw on a balance of the customer, of a seat that this property names if any."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "customer_id": customer_id, "unit": unit.key, "key": seat_key}
    await raw.execute(_EXPECT_DRAWS, parameters)


_SET_DUE = """
UPDATE wallet w SET due_time = i.due_time, read_time = greatest(w.read_time, i.read_time)
"""
_EXPECT_DUE = """
UPDATE wallet w SET due_time = least(w.due_time, i.due_time), read_time = greatest(w.read_time, i.read_time)
"""
_FROM = """
FROM unnest(%(ids)s::text[], %(due)s::timestamptz[], %(read)s::timestamptz[]) AS i (customer_id, due_time, read_time)
WHERE w.organization_id = %(organization_id)s AND w.customer_id = i.customer_id COLLATE "C"
"""


class Read(NamedTuple):
    """What alerts read of a customer is of `time`, and next changes with time alone at `due_time` (None: never)."""

    time: datetime
    due_time: datetime | None


async def set_due(connection: Connection, organization_id: int, read: Mapping[str, Read]) -> None:
    """Notes when customers were looked at and have to be next, all alerts considered. Their wallets must be held."""
    await _note(connection, _SET_DUE, organization_id, read)


async def expect_due(connection: Connection, organization_id: int, read: Mapping[str, Read]) -> None:
    """Like `set_due`, of some alerts or facts: what is due earlier stands."""
    await _note(connection, _EXPECT_DUE, organization_id, read)


async def _note(connection: Connection, statement: str, organization_id: int, read: Mapping[str, Read]) -> None:
    if read:
        raw = await driver(connection)
        parameters = {
            "organization_id": organization_id,
            "ids": list(read),
            "due": [item.due_time for item in read.values()],
            "read": [item.time for item in read.values()],
        }
        await raw.execute((statement + _FROM).encode(), parameters)


_OVERDUE = """
SELECT w.organization_id, o.name, w.customer_id, w.due_time
FROM wallet w JOIN organization o USING (organization_id)
WHERE w.due_time <= %(now)s AND w.organization_id <> ALL(%(others_than)s)
ORDER BY w.due_time LIMIT %(limit)s
"""
_NEXT_DUE = "SELECT min(due_time) FROM wallet"


@dataclass(frozen=True)
class Due:
    """A customer whose time has come; organization: the name."""

    organization_id: int
    organization: str
    customer_id: str
    due_time: datetime


async def overdue(connection: Connection, now: datetime, limit: int, others_than: Collection[int] = ()) -> list[Due]:
    """The customers whose time has come, the longest waiting first; nothing is locked.

    others_than: organizations whose customers are left out.
    """
    raw = await driver(connection)
    parameters = {"now": now, "limit": limit, "others_than": list(others_than)}
    cursor = await raw.execute(_OVERDUE, parameters)
    return [Due(*row) for row in await cursor.fetchall()]


async def next_due(connection: Connection) -> datetime | None:
    """When the next customer's time comes."""
    raw = await driver(connection)
    cursor = await raw.execute(_NEXT_DUE)
    row = await cursor.fetchone()
    return None if row is None else row[0]


_CLAIM = """
SELECT customer_id, draw_units, seat_keys, due_time, read_time FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s) AND due_time <= %(now)s
ORDER BY customer_id FOR UPDATE SKIP LOCKED
"""


async def claim_due(
    connection: Connection, organization_id: int, customer_ids: Iterable[str], now: datetime
) -> dict[str, Wallet]:
    """Holds those of the wallets that are still due and that nobody holds."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "ids": sorted(set(customer_ids)), "now": now}
    cursor = await raw.execute(_CLAIM, parameters)
    return {row[0]: Wallet.of_row(row) for row in await cursor.fetchall()}
