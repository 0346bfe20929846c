"""What placing has done, what it has not, and the lock of a feed that it holds."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A notification without a position, as feed_pending has it."""

    arrival: int
    customer_id: str
    notification_id: str


@dataclass(frozen=True, slots=True)
class Placed:
    """What one transaction has placed.

    number: of positions that it assigned. unseen: the first notification that does not show yet, and for which later
    ones wait; None if everything that was committed before has its position, or there may be more. more: it has
    reached its limit.
    """

    number: int
    unseen: PendingRow | None = None
    more: bool = False


# Creates the row of a feed.
_CREATE_FEED = text("""
INSERT INTO feed (organization_id, last_place, high_time) VALUES (:organization_id, 0, 'epoch') ON CONFLICT DO NOTHING
""")

# Locks the row of a feed. A server that freezes while it holds this lock would stop the feed for all servers, so
# PostgreSQL ends its session after 10 s.
_LOCK_FEED = text("""
SELECT last_place, set_config('idle_in_transaction_session_timeout', '10s', true)
FROM feed WHERE organization_id = :organization_id FOR UPDATE
""")


async def lock_feed(connection: AsyncConnection, organization_id: int) -> None:
    """Locks the feed of an organization until the transaction ends: no other one places or deletes its entries."""
    parameters = {"organization_id": organization_id}
    if (await connection.execute(_LOCK_FEED, parameters)).one_or_none() is None:
        await connection.execute(_CREATE_FEED, parameters)
        await connection.execute(_LOCK_FEED, parameters)
