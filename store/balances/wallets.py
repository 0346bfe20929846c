"""Wallets: the lock on a customer's balances and invoices. `wallet_timers` has the timers that they store.

A transaction that reads balances or invoices of a customer in order to change them, or what follows from them, must
hold the customer's wallet. In the order of all locks, wallets come after organizations, implicit registrations and
events, and before balances, invoices and gauges.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from evaluator.balances import Unit
from store.citus.shard_tables import ShardsOf, ShardTables, by_shard, in_shard, parts_of
from store.postgres import row_locks
from store.postgres.database import Connection, DriverConnection, Row, driver
from store.postgres.distributed import Forms, on_cluster
from store.postgres.row_locks import Sent

COLUMNS = "customer_id, draw_units, seat_keys, has_recharge_policy, due_time, read_time"  # of `Wallet.of_row`

# Creates the wallets that are missing. A statement before _LOCK, for all wallets of the transaction: if creating and
# locking alternated, two transactions could each hold a wallet and wait for the row that the other one has created.
_CREATE = """
INSERT INTO wallet (organization_id, customer_id)
SELECT %(organization_id)s, id FROM unnest(%(ids)s::text[]) AS i (id)
ON CONFLICT DO NOTHING
"""

# Locks wallets, in the order of their ids.
_LOCK = f"""
SELECT {COLUMNS} FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
ORDER BY customer_id FOR UPDATE
"""

# Locks those of the wallets on whose balances usage draws. Each commit of usage asks for all of its customers, so
# their ids come as one text with tabs between them: the driver converts an array value by value. The subquery keeps
# thousands of ids from being searched where no customer of the organization has such balances.
_LOCK_WITH_DRAWDOWN = f"""
SELECT {COLUMNS} FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(string_to_array(%(ids)s, E'\t'))
    AND draw_units <> '{{}}'
    AND EXISTS (SELECT 1 FROM wallet WHERE organization_id = %(organization_id)s AND draw_units <> '{{}}')
ORDER BY customer_id FOR UPDATE
"""

OF_ONE = "organization_id = %(organization_id)s AND customer_id = %(customer_id)s"
# Which of many customers have balances on which usage draws: most have none, and no lock is taken for them.
_WITH_DRAWDOWN = """
SELECT customer_id FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s) AND draw_units <> '{}'
"""


@dataclass(frozen=True)
class Wallet:
    """A wallet that the transaction holds.

    draw_units: the keys of the units in which the customer has had balances with drawdown. seat_keys: the properties
    that name the seats of such balances. has_recharge_policy: whether a balance of the customer has one. due_time:
    the customer's timer (`wallet_timers`). read_time: the time as of which alerts last read the customer.
    """

    customer_id: str
    draw_units: frozenset[str]
    seat_keys: tuple[str, ...]
    has_recharge_policy: bool
    due_time: datetime | None
    read_time: datetime | None

    def moment(self, now: datetime) -> datetime:
        """The time as of which to read the customer: `now`, or the later time at which a faster clock has read it."""
        return now if self.read_time is None else max(now, self.read_time)

    @classmethod
    def of_row(cls, row: Row) -> "Wallet":
        """The wallet in a row with `COLUMNS`."""
        customer_id, draw_units, seat_keys, *others = row
        return cls(customer_id, frozenset(draw_units), tuple(seat_keys), *others)


async def lock(connection: Connection, organization_id: int, customer_ids: Iterable[str]) -> dict[str, Wallet]:
    """Holds the customers' wallets until the transaction ends; waits for transactions that hold one of them."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "ids": sorted(set(customer_ids))}
    async with raw.pipeline():
        await raw.execute(_CREATE, parameters)
        if on_cluster(raw):
            sent = await _send_by_shard(raw, _LOCK, organization_id, customer_ids)
        else:
            sent = [await raw.execute(_LOCK, parameters)]
    return await held(sent)


# The two statements of `lock` for many customers, whose ids come as one text: see _LOCK_WITH_DRAWDOWN.
_CREATE_MANY = """
INSERT INTO wallet (organization_id, customer_id)
SELECT %(organization_id)s, id FROM unnest(string_to_array(%(ids)s, E'\t')) AS i (id)
ON CONFLICT DO NOTHING
"""
_LOCK_MANY = f"""
WITH locked AS MATERIALIZED (
    SELECT {COLUMNS} FROM wallet
    WHERE organization_id = %(organization_id)s AND customer_id = ANY(string_to_array(%(ids)s, E'\t'))
    ORDER BY customer_id FOR UPDATE
)
SELECT (SELECT count(*) FROM locked), l.* FROM (SELECT) AS one LEFT JOIN locked l ON l.draw_units <> '{{}}'
"""

# Of a cluster: a row for each customer of a shard, whose columns are those of _LOCK_MANY. The number follows from the
# rows.
_LOCK_MANY_OF_SHARD = f"""
SELECT NULL, {COLUMNS} FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
ORDER BY customer_id FOR UPDATE
"""


async def send_create(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str], shard: ShardTables | None = None
) -> None:
    """Sends the statement that creates the wallets that do not exist; once in a transaction, before `send_lock`.

    shard: of all customers, if the transaction holds it at this node.
    """
    parameters = {"organization_id": organization_id, "ids": "\t".join(sorted(customer_ids))}
    await connection.execute(_in(_CREATE_MANY, shard), parameters)


# Locks wallets, and those of the others on whose balances usage draws, in one order.
_LOCK_WITH_OTHERS = f"""
SELECT {COLUMNS} FROM wallet
WHERE organization_id = %(organization_id)s AND (
    customer_id = ANY(string_to_array(%(ids)s, E'\t'))
    OR customer_id = ANY(string_to_array(%(others)s, E'\t')) AND draw_units <> '{{}}'
)
ORDER BY customer_id FOR UPDATE
"""


async def lock_with_others(
    connection: DriverConnection,
    organization_id: int,
    customer_ids: Collection[str],
    others: Iterable[str],
    shards: ShardsOf | None = None,
) -> dict[str, Wallet]:
    """Holds the customers' wallets, and those of the others on whose balances usage draws.

    Creates those of the customers that are missing. shards: of all of them, if the transaction holds them at this
    node.
    """
    drawing, ids = set(others), sorted(customer_ids)
    async with connection.pipeline():
        for shard, indexes in parts_of(ids, shards) if ids else ():
            await send_create(connection, organization_id, [ids[index] for index in indexes], shard)
        if on_cluster(connection) and shards is None:
            drawing = await _with_drawdown(connection, organization_id, drawing)
            sent = await _send_by_shard(connection, _LOCK, organization_id, drawing.union(ids))
        else:
            wanted, named = list(drawing.union(ids)), set(ids)
            sent = []
            for shard, indexes in parts_of(wanted, shards):
                part = [wanted[index] for index in indexes]
                parameters = {
                    "organization_id": organization_id,
                    "ids": "\t".join(sorted(named.intersection(part))),
                    "others": "\t".join(drawing.intersection(part)),
                }
                sent.append(await connection.execute(_in(_LOCK_WITH_OTHERS, shard), parameters))
    return await held(sent)


async def send_lock(connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]) -> Sent:
    """Sends what locks those of the customers' wallets that exist; `locked` reads the result."""
    if on_cluster(connection):
        return await _send_by_shard(connection, _LOCK_MANY_OF_SHARD, organization_id, customer_ids)
    parameters = {"organization_id": organization_id, "ids": "\t".join(customer_ids)}
    return [await connection.execute(_LOCK_MANY, parameters)]


async def locked(sent: Sent) -> tuple[int, dict[str, Wallet]]:
    """The result of `send_lock`: how many wallets are held, and those on whose balances usage draws."""
    rows = await row_locks.rows(sent)
    number = rows[0][0] if rows and rows[0][0] is not None else len(rows)
    return number, {row[1]: Wallet.of_row(row[1:]) for row in rows if row[1] is not None and row[2]}


# Reads wallets without a lock. The array is a subquery: see `store.enforcement.meters`. A cluster finds no shards by
# that.
_READ_WITH_DRAWDOWN = f"""
SELECT {COLUMNS} FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY((SELECT string_to_array(%(ids)s, E'\t'))::text[])
    AND draw_units <> '{{}}'
"""
_READ_DRAWING = Forms(
    _READ_WITH_DRAWDOWN.encode(),
    _READ_WITH_DRAWDOWN.replace(
        "(SELECT string_to_array(%(ids)s, E'\t'))", "string_to_array(%(ids)s, E'\t')"
    ).encode(),
)


async def send_read_with_drawdown(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]
) -> Sent:
    """Sends the statement that reads those of the customers' wallets on whose balances usage draws; `held` reads it.

    It locks nothing.
    """
    parameters = {"organization_id": organization_id, "ids": "\t".join(customer_ids)}
    return [await connection.execute(_READ_DRAWING.on(connection), parameters)]


async def lock_with_drawdown(
    connection: Connection, organization_id: int, customer_ids: Collection[str], shards: ShardsOf | None = None
) -> dict[str, Wallet]:
    """Holds those of the customers' wallets on whose balances usage draws; does not lock the others.

    shards: of all customers, if the transaction holds them at this node.
    """
    raw = await driver(connection)
    if shards is None:
        return await held(await send_lock_with_drawdown(raw, organization_id, customer_ids))
    async with raw.pipeline():
        sent = await send_lock_with_drawdown(raw, organization_id, customer_ids, shards)
    return await held(sent)


async def send_lock_with_drawdown(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str], shards: ShardsOf | None = None
) -> Sent:
    """Sends what `lock_with_drawdown` executes; `held` reads the result.

    On a cluster it waits for a read, unless shards are named.
    """
    ids = list(set(customer_ids))
    if on_cluster(connection) and shards is None:
        drawing = await _with_drawdown(connection, organization_id, ids)
        return await _send_by_shard(connection, _LOCK, organization_id, drawing)
    if shards is None:
        parameters = {"organization_id": organization_id, "ids": "\t".join(ids)}
        return [await connection.execute(_LOCK_WITH_DRAWDOWN, parameters)]
    sent = []
    for shard, indexes in by_shard(ids, shards).items():
        parameters = {"organization_id": organization_id, "ids": "\t".join([ids[index] for index in indexes])}
        sent.append(await connection.execute(_in(_LOCK_WITH_DRAWDOWN, shard), parameters))
    return sent


async def _with_drawdown(connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]) -> set[str]:
    """Those of the customers on whose balances usage draws. Units are never removed from a wallet.

    A cluster asks only the shards of the customers, which it does not find out from a text.
    """
    ids = list(set(customer_ids))
    cursor = await connection.execute(_WITH_DRAWDOWN, {"organization_id": organization_id, "ids": ids})
    return {row[0] for row in await cursor.fetchall()}


async def _send_by_shard(
    connection: DriverConnection, statement: str, organization_id: int, customer_ids: Iterable[str]
) -> Sent:
    return await row_locks.send_by_shard(
        connection,
        statement.encode(),
        set(customer_ids),
        lambda ids: {"organization_id": organization_id, "ids": ids},
    )


def _in(statement: str, shard: ShardTables | None) -> bytes:
    return statement.encode() if shard is None else in_shard(statement.encode(), shard)


async def held(sent: Sent) -> dict[str, Wallet]:
    """The wallets in the rows of statements that select `COLUMNS`."""
    return {row[0]: Wallet.of_row(row) for row in await row_locks.rows(sent)}


# Adds a unit, and the property of a seat, to a wallet that lacks them.
_ADD_DRAWDOWN_UNIT = """
UPDATE wallet SET
    draw_units = CASE WHEN %(unit)s = ANY(draw_units) THEN draw_units ELSE draw_units || %(unit)s::text END,
    seat_keys = CASE WHEN %(key)s::text IS NULL OR %(key)s = ANY(seat_keys) THEN seat_keys
        ELSE seat_keys || %(key)s::text END
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s
    AND NOT (%(unit)s = ANY(draw_units) AND (%(key)s::text IS NULL OR %(key)s = ANY(seat_keys)))
"""


async def add_drawdown_unit(
    connection: Connection, organization_id: int, customer_id: str, unit: Unit, seat_key: str | None
) -> None:
    """Records that usage in `unit` can draw on a balance of the customer.

    seat_key: the property that names the seat of the balance; None for a balance of no seat.
    """
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "customer_id": customer_id, "unit": unit.key, "key": seat_key}
    await raw.execute(_ADD_DRAWDOWN_UNIT, parameters)
