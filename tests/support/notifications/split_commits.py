"""Commits that become visible in two moments: first the row in feed_pending, and later the notification.

So a cluster shows them, whose nodes commit one after the other. Here two sessions of one server stand for the nodes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from store.postgres.database import DriverConnection
from tests.support.notifications.watching import Committer, committer
from tests.support.usage.caller import Caller


class SplitCommitter:
    """Writes notifications of which the two halves are committed when the test says so."""

    def __init__(self, whole: Committer, nodes: DriverConnection, coordinator: DriverConnection) -> None:
        self._whole = whole
        self._notifications = nodes
        self._pending = coordinator

    async def notifies(self, *names: tuple[str, int]) -> None:
        """Writes both halves of notifications of these customers with these sequences, and commits neither."""
        await self._whole.notifies(*names)
        taken = await self._notifications.execute(
            "DELETE FROM feed_pending WHERE xmin = pg_current_xact_id()::xid"
            " RETURNING organization_id, customer_id, notification_id"
        )
        async with self._pending.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO feed_pending (organization_id, customer_id, notification_id) VALUES (%s, %s, %s)",
                await taken.fetchall(),
            )

    async def shows_pending(self) -> None:
        """Commits the rows of feed_pending."""
        await self._pending.commit()

    async def shows_notifications(self) -> None:
        """Commits the notifications."""
        await self._notifications.commit()


@asynccontextmanager
async def split_committer(caller: Caller) -> AsyncIterator[SplitCommitter]:
    """Two connections of the test's own, whose transactions are open until they commit."""
    async with (
        committer(caller) as whole,
        await psycopg.AsyncConnection.connect(caller.database_url) as coordinator,
    ):
        yield SplitCommitter(whole, whole.connection, coordinator)
