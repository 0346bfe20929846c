"""Reservations that expire: found in all organizations, and deleted when they ended long ago."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from store.identity import organizations
from store.postgres import apart
from store.postgres.database import Connection, DriverConnection, driver
from store.postgres.distributed import on_cluster

_CLAIM_CLASS = 0x7468  # of the advisory locks that let one process at a time work on an organization

# Open reservations that have expired, the earliest first.
_DUE = """
SELECT r.organization_id, o.name, r.customer_id, r.reservation_id
FROM (
    SELECT organization_id, customer_id, reservation_id, expire_time FROM reservation
    WHERE state = 'OPEN' AND expire_time <= %(until)s AND organization_id <> ALL(%(others_than)s)
    ORDER BY expire_time LIMIT %(limit)s
) AS r JOIN organization o USING (organization_id)
ORDER BY r.expire_time
"""
_NEXT = "SELECT min(expire_time) FROM reservation WHERE state = 'OPEN'"
# The same of one shard; see `apart`.
_DUE_OF_SHARD = """
SELECT organization_id, customer_id, reservation_id, expire_time FROM %s
WHERE '%s' <> '' AND state = 'OPEN' AND expire_time <= {until} AND organization_id <> ALL({others_than})
ORDER BY expire_time LIMIT {limit}
"""
_NEXT_OF_SHARD = "SELECT min(expire_time) AS expire_time FROM %s WHERE '%s' <> '' AND state = 'OPEN'"

# Deletes reservations that ended long ago.
_DELETE = """
DELETE FROM reservation WHERE (organization_id, customer_id, reservation_id) IN (
    SELECT organization_id, customer_id, reservation_id FROM reservation
    WHERE state <> 'OPEN' AND end_time < %(before)s ORDER BY end_time LIMIT %(limit)s
) AND state <> 'OPEN'
"""


@dataclass(frozen=True, slots=True)
class Expiring:
    """A reservation that has expired. organization: the name."""

    organization_id: int
    organization: str
    customer_id: str
    reservation_id: str

    @property
    def key(self) -> tuple[int, str, str]:
        """Organization, customer and reservation."""
        return self.organization_id, self.customer_id, self.reservation_id


async def due(
    connection: Connection, until: datetime, limit: int, others_than: Collection[int] = ()
) -> list[Expiring]:
    """Up to `limit` open reservations that expired until a time, the earliest first; locks nothing.

    others_than: organizations whose reservations are left out. While a node of a cluster is away, its customers are
    left out, too.
    """
    raw = await driver(connection)
    if on_cluster(raw) and apart.is_needed(connection):
        return await _due_apart(connection, until, limit, others_than)
    parameters = {"until": until, "limit": limit, "others_than": list(others_than)}
    with apart.noticing(connection):
        cursor = await raw.execute(_DUE, parameters)
    return [Expiring(*row) for row in await cursor.fetchall()]


async def _due_apart(
    connection: Connection, until: datetime, limit: int, others_than: Collection[int]
) -> list[Expiring]:
    statement = _DUE_OF_SHARD.format(
        until=apart.literal(until), others_than=apart.literals(others_than), limit=int(limit)
    )
    found = await apart.rows(connection, "reservation", "wallet", statement)
    first = sorted(found, key=lambda row: datetime.fromisoformat(row["expire_time"]))[:limit]
    names = await organizations.names(connection, {row["organization_id"] for row in first})
    return [
        Expiring(row["organization_id"], names[row["organization_id"]], row["customer_id"], row["reservation_id"])
        for row in first
        if row["organization_id"] in names
    ]


async def next_expiry(connection: Connection) -> datetime | None:
    """The earliest expire_time of an open reservation of any organization; None if there is none."""
    raw = await driver(connection)
    if on_cluster(raw) and apart.is_needed(connection):
        found = await apart.rows(connection, "reservation", "wallet", _NEXT_OF_SHARD)
        times = [datetime.fromisoformat(one["expire_time"]) for one in found if one["expire_time"] is not None]
        return min(times, default=None)
    with apart.noticing(connection):
        cursor = await raw.execute(_NEXT)
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def claim(connection: DriverConnection, organization_id: int) -> bool:
    """Whether the transaction may work on the expired reservations of an organization; then no other one does."""
    cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (_CLAIM_CLASS, organization_id))
    [(claimed,)] = await cursor.fetchall()
    return bool(claimed)


async def delete_ended(connection: DriverConnection, before: datetime, limit: int) -> int:
    """Deletes up to `limit` reservations that ended before a time; returns how many. Their ids can be used again."""
    cursor = await connection.execute(_DELETE, {"before": before, "limit": limit})
    return cursor.rowcount
