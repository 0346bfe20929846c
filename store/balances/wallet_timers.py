"""The timers of customers, which their wallets store: when time alone next changes what alerts read.

A recharge policy has a timer of its own (`store.recharges`); both are found here when they are due.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from store.balances import wallets
from store.balances.wallets import Wallet
from store.identity import organizations
from store.postgres import apart, row_locks
from store.postgres.database import Connection, driver
from store.postgres.distributed import Forms, on_cluster

# Replaces the timers of customers.
_NEW_TIMERS = "UPDATE wallet w SET due_time = i.due_time, read_time = greatest(w.read_time, i.read_time)"

# Sets the timers of customers that have no earlier one.
_EARLIER_TIMERS = """
UPDATE wallet w SET due_time = least(w.due_time, i.due_time), read_time = greatest(w.read_time, i.read_time)
"""

# The customers that the two statements above update.
_OF_CUSTOMERS = """
FROM unnest(%(ids)s::text[], %(due)s::timestamptz[], %(read)s::timestamptz[]) AS i (customer_id, due_time, read_time)
WHERE w.organization_id = %(organization_id)s AND w.customer_id = i.customer_id COLLATE "C" {shards}
"""
_SET_TIMERS = Forms.naming_shards(_NEW_TIMERS + _OF_CUSTOMERS, "w.customer_id = ANY(%(ids)s)")
_SET_EARLIER_TIMERS = Forms.naming_shards(_EARLIER_TIMERS + _OF_CUSTOMERS, "w.customer_id = ANY(%(ids)s)")


class ReadTimes(NamedTuple):
    """When alerts read a customer.

    time: the time as of which they read it now. due_time: the customer's timer, the time at which time alone next
    changes what they read; None if it never does.
    """

    time: datetime
    due_time: datetime | None


async def set_timers(connection: Connection, organization_id: int, read: Mapping[str, ReadTimes]) -> None:
    """Sets the timers of customers of which all alerts were considered. The transaction must hold their wallets."""
    await _set(connection, _SET_TIMERS, organization_id, read)


async def set_earlier_timers(connection: Connection, organization_id: int, read: Mapping[str, ReadTimes]) -> None:
    """Like `set_timers`, where only some alerts or facts were considered: an earlier timer remains."""
    await _set(connection, _SET_EARLIER_TIMERS, organization_id, read)


async def _set(connection: Connection, statement: Forms, organization_id: int, read: Mapping[str, ReadTimes]) -> None:
    if read:
        raw = await driver(connection)
        parameters = {
            "organization_id": organization_id,
            "ids": list(read),
            "due": [item.due_time for item in read.values()],
            "read": [item.time for item in read.values()],
        }
        await raw.execute(statement.on(raw), parameters)


# The customers whose timers are due, the earliest first: those of wallets and those of recharge policies.
_DUE_TIMERS = """
SELECT d.organization_id, o.name, d.customer_id, min(d.due_time)
FROM (
    (SELECT organization_id, customer_id, due_time FROM wallet
     WHERE due_time <= %(now)s AND organization_id <> ALL(%(others_than)s) ORDER BY due_time LIMIT %(limit)s)
    UNION ALL
    (SELECT organization_id, customer_id, due_time FROM recharge_policy
     WHERE due_time <= %(now)s AND organization_id <> ALL(%(others_than)s) ORDER BY due_time LIMIT %(limit)s)
) AS d JOIN organization o USING (organization_id)
GROUP BY d.organization_id, o.name, d.customer_id
ORDER BY 4 LIMIT %(limit)s
"""

# The same of one shard; see `apart`.
_DUE_OF_SHARD = """
SELECT organization_id, customer_id, min(due_time) AS due_time
FROM (
    (SELECT organization_id, customer_id, due_time FROM %s
     WHERE due_time <= {now} AND organization_id <> ALL({others_than}) ORDER BY due_time LIMIT {limit})
    UNION ALL
    (SELECT organization_id, customer_id, due_time FROM %s
     WHERE due_time <= {now} AND organization_id <> ALL({others_than}) ORDER BY due_time LIMIT {limit})
) AS d GROUP BY organization_id, customer_id ORDER BY 3 LIMIT {limit}
"""

# The time of the earliest timer. NULLs are left out.
_NEXT_DUE_TIME = "SELECT least((SELECT min(due_time) FROM wallet), (SELECT min(due_time) FROM recharge_policy))"
_NEXT_DUE_TIME_OF_SHARD = "SELECT least((SELECT min(due_time) FROM %s), (SELECT min(due_time) FROM %s)) AS due_time"


@dataclass(frozen=True)
class DueTimer:
    """The timer of a customer that is due. organization: the name."""

    organization_id: int
    organization: str
    customer_id: str
    due_time: datetime


async def due_timers(
    connection: Connection, now: datetime, limit: int, others_than: Collection[int] = ()
) -> list[DueTimer]:
    """Up to `limit` timers that are due, the earliest first; locks nothing.

    others_than: organizations whose timers are left out. While a node of a cluster is away, its customers are left
    out, too.
    """
    raw = await driver(connection)
    if on_cluster(raw) and apart.is_needed(connection):
        return await _due_apart(connection, now, limit, others_than)
    parameters = {"now": now, "limit": limit, "others_than": list(others_than)}
    with apart.noticing(connection):
        cursor = await raw.execute(_DUE_TIMERS, parameters)
    return [DueTimer(*row) for row in await cursor.fetchall()]


async def _due_apart(
    connection: Connection, now: datetime, limit: int, others_than: Collection[int]
) -> list[DueTimer]:
    statement = _DUE_OF_SHARD.format(
        now=apart.literal(now), others_than=apart.literals(others_than), limit=int(limit)
    )
    found = await apart.rows(connection, "wallet", "recharge_policy", statement)
    names = await organizations.names(connection, {row["organization_id"] for row in found})
    due = [
        DueTimer(
            row["organization_id"],
            names[row["organization_id"]],
            row["customer_id"],
            datetime.fromisoformat(row["due_time"]),
        )
        for row in found
        if row["organization_id"] in names
    ]
    return sorted(due, key=lambda one: one.due_time)[:limit]


async def next_due_time(connection: Connection) -> datetime | None:
    """The time of the earliest timer of all organizations; None if there is no timer."""
    raw = await driver(connection)
    if on_cluster(raw) and apart.is_needed(connection):
        found = await apart.rows(connection, "wallet", "recharge_policy", _NEXT_DUE_TIME_OF_SHARD)
        times = [datetime.fromisoformat(row["due_time"]) for row in found if row["due_time"] is not None]
        return min(times, default=None)
    with apart.noticing(connection):
        cursor = await raw.execute(_NEXT_DUE_TIME)
    row = await cursor.fetchone()
    return None if row is None else row[0]


# Locks those of the wallets that no other transaction holds, if their timer is due or that of a policy may be.
_CLAIM_DUE = f"""
SELECT {wallets.COLUMNS} FROM wallet
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
    AND (due_time <= %(now)s OR has_recharge_policy)
ORDER BY customer_id FOR UPDATE SKIP LOCKED
"""
# Of a cluster: see `store.postgres.row_locks`.
_CLAIM_ONE = f"""
SELECT {wallets.COLUMNS} FROM wallet
WHERE {wallets.OF_ONE} AND (due_time <= %(now)s OR has_recharge_policy) FOR UPDATE SKIP LOCKED
""".encode()


async def claim_due(
    connection: Connection, organization_id: int, customer_ids: Iterable[str], now: datetime
) -> dict[str, Wallet]:
    """Holds those of the wallets whose timer is still due and that no other transaction holds.

    Of customers with a recharge policy the wallet may be held although nothing is due any more.
    """
    raw = await driver(connection)
    if on_cluster(raw):
        each = {one: {"organization_id": organization_id, "customer_id": one, "now": now} for one in customer_ids}
        return await wallets.held(await row_locks.send_each(raw, _CLAIM_ONE, each))
    parameters = {"organization_id": organization_id, "ids": sorted(set(customer_ids)), "now": now}
    return await wallets.held([await raw.execute(_CLAIM_DUE, parameters)])
