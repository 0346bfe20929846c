"""Announcing notifications of commits at workers to the listeners of the coordinator.

A NOTIFY reaches the listeners of the node where it is sent. So after a commit at a worker, the server sends it at the
coordinator: one transaction at a time, for all organizations that were announced meanwhile. It is only a hint. If it
is lost, notifiers and streams find the notifications when they read all nodes.
"""

import logging
from collections.abc import Collection

from runtime.actions import LogAction
from runtime.tasks import BackgroundTask, FailureLog
from store.deliveries import outbox
from store.postgres.database import Database, DatabaseUnavailable

logger = logging.getLogger(__name__)


class Announcer:
    """Sends NOTIFY at the coordinator."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting = set[int]()  # organizations
        self._task = BackgroundTask(
            self._announce_waiting,
            FailureLog(
                logger,
                "notifications of a node could not be announced",
                LogAction.NODES_FAILED,
                (DatabaseUnavailable,),
                "notifications of a node are found by polling only: %s",
                LogAction.NODES_FAILED,
            ),
            name="announcements",
        )

    def start(self) -> None:
        """Begins to announce."""
        self._task.start()

    async def stop(self) -> None:
        """Ends the task; what waits is not announced."""
        await self._task.stop()

    def announce(self, organization_ids: Collection[int]) -> None:
        """Announces soon that there are notifications of these organizations."""
        self._waiting.update(organization_ids)
        self._task.wake()

    async def _announce_waiting(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, set[int]()
        async with self._database.transaction() as connection:
            await outbox.announce(connection, waiting)
