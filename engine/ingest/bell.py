"""The bell of commits at nodes: it says to the coordinator's listeners that there are notifications.

NOTIFY is heard where it was sent. So after a commit at a worker, the server sends it at the coordinator: one
transaction at a time, for all organizations that were announced meanwhile. It is only a hint. If it is lost,
notifiers and streams find the notifications when they look at all nodes.
"""

import logging
from collections.abc import Collection

from runtime.actions import LogAction
from runtime.tasks import BackgroundTask, FailureLog
from store.deliveries import outbox
from store.postgres.database import Database, DatabaseUnavailable

logger = logging.getLogger(__name__)


class Bell:
    """Rings at the coordinator."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting = set[int]()  # organizations
        self._task = BackgroundTask(
            self._ring,
            FailureLog(
                logger,
                "notifications of a node could not be announced",
                LogAction.NODES_FAILED,
                (DatabaseUnavailable,),
                "notifications of a node are found by polling only: %s",
                LogAction.NODES_FAILED,
            ),
            name="bell",
        )

    def start(self) -> None:
        """Begins to ring."""
        self._task.start()

    async def stop(self) -> None:
        """Rings for what waits no more."""
        await self._task.stop()

    def announce(self, organization_ids: Collection[int]) -> None:
        """Says that there are notifications of these organizations."""
        self._waiting.update(organization_ids)
        self._task.wake()

    async def _ring(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, set[int]()
        async with self._database.transaction() as connection:
            await outbox.announce(connection, waiting)
