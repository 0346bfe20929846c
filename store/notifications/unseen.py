"""Notifications that are to get a position and do not show: how readers wait for them, and when one never comes.

A row of feed_pending whose notification does not show is one of two things. Mostly its transaction has committed on
one node and not yet on another: the notification shows within milliseconds, or, when a node has failed in between,
when its prepared transaction is committed. Or the notification was deleted without this row, which only an operator
does, or an erasure of a version before this rule.

Time does not separate the two. The primary key of notification does: the transaction that wrote the row in
feed_pending has written the notification before it committed, so an insert with the same key waits for that
transaction, and then finds the key taken. If the insert succeeds instead, there is no such notification and
there will be none. It is rolled back, and the row of feed_pending is deleted.
"""

import asyncio
import logging

from sqlalchemy import text

from runtime.actions import LogAction
from store.notifications.placed import PendingRow
from store.postgres.database import Database, DriverConnection, driver

FIRST_PAUSE = 0.01  # seconds; most notifications show within that time
LONGEST_PAUSE = 0.5  # seconds
PATIENCE = 2.0  # seconds for which one notification may not show before its key is tried

logger = logging.getLogger(__name__)

# A time for the whole cluster: lock_timeout is a setting of the node that one is connected to.
_BOUND = text("SELECT set_config('statement_timeout', '3s', true)")

_TRY_KEY = """
INSERT INTO notification (
    organization_id, customer_id, notification_id, alert_id, sequence, event_type, condition_type, create_time, body
)
VALUES (%s, %s, %s, '', 0, '', '', now(), '')
ON CONFLICT DO NOTHING RETURNING sequence
"""

_DELETE = text("""
DELETE FROM feed_pending
WHERE organization_id = :organization_id AND arrival = :arrival AND customer_id = :customer_id
  AND notification_id = :notification_id
""")


async def delete_if_missing(database: Database, organization_id: int, pending: PendingRow) -> bool:
    """Deletes a row of feed_pending if its notification certainly never shows; returns whether it did.

    Waits for a transaction that has written the notification and has not ended. Raises DatabaseUnavailable when that
    takes too long.
    """
    async with database.transaction() as connection:
        await connection.execute(_BOUND)
        if not await _key_is_free(await driver(connection), organization_id, pending):
            return False
        deleted = await connection.execute(
            _DELETE,
            {
                "organization_id": organization_id,
                "arrival": pending.arrival,
                "customer_id": pending.customer_id,
                "notification_id": pending.notification_id,
            },
        )
    if not deleted.rowcount:  # another server was faster
        return False
    logger.error(
        "a notification was deleted before it had a position in the feed; the feed goes on without it",
        extra={
            "action": LogAction.FEED_NOTIFICATION_MISSING,
            "organization_id": organization_id,
            "notification_id": pending.notification_id,
        },
    )
    return True


async def _key_is_free(connection: DriverConnection, organization_id: int, pending: PendingRow) -> bool:
    async with connection.transaction(force_rollback=True):  # a savepoint
        cursor = await connection.execute(_TRY_KEY, (organization_id, pending.customer_id, pending.notification_id))
        return await cursor.fetchone() is not None


class UnseenWait:
    """The pauses of one reader of a feed, while the first notification of those that wait does not show."""

    def __init__(self, database: Database, organization_id: int) -> None:
        self._database = database
        self._organization_id = organization_id
        self._arrival = 0  # of the notification that does not show
        self._since = 0.0  # when it did not show for the first time, by the event loop's clock

    async def pause(self, unseen: PendingRow) -> float:
        """The seconds to wait before the next try; they grow as long as it is the same notification.

        After PATIENCE it tries the key. Raises DatabaseUnavailable.
        """
        now = asyncio.get_running_loop().time()
        if unseen.arrival != self._arrival:
            self._arrival, self._since = unseen.arrival, now
        waited = now - self._since
        if waited >= PATIENCE:
            if await delete_if_missing(self._database, self._organization_id, unseen):
                return 0.0
            # It has come meanwhile. If its node does not answer, the next try of the reader fails.
            self._since = asyncio.get_running_loop().time()
        return min(max(waited, FIRST_PAUSE), LONGEST_PAUSE)
