"""Reservations that expire: found in all organizations, and deleted when they ended long ago."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from store.postgres.database import DriverConnection

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
    connection: DriverConnection, until: datetime, limit: int, others_than: Collection[int] = ()
) -> list[Expiring]:
    """Up to `limit` open reservations that expired until a time, the earliest first; locks nothing.

    others_than: organizations whose reservations are left out.
    """
    parameters = {"until": until, "limit": limit, "others_than": list(others_than)}
    cursor = await connection.execute(_DUE, parameters)
    return [Expiring(*row) for row in await cursor.fetchall()]


async def next_expiry(connection: DriverConnection) -> datetime | None:
    """The earliest expire_time of an open reservation of any organization; None if there is none."""
    cursor = await connection.execute(_NEXT)
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
