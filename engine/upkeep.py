"""Upkeep: partitions are made ahead, and what is older than its retention is dropped or deleted."""

import logging
from datetime import datetime, timedelta

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.configuration import DEFAULT_AUDIT_RETENTION
from runtime.tasks import BackgroundTask, FailureLog
from store.audit import partitions as audit_partitions
from store.enforcement import expiring, meters
from store.identity import idempotent_answers
from store.notifications import history as notification_history
from store.notifications import omitted
from store.postgres import partitions
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.retries import repeated
from store.usage import voids
from store.views import alarms

AHEAD = timedelta(days=45)  # how far ahead partitions are made; more than a month, so that one is always there
REPLAY_LIFETIME = timedelta(days=7)  # how long a request_id gets its first answer again; the contract says 48 h
STATES_COMPLETED = 1_000  # in one transaction
NOTIFICATIONS_DELETED = 1_000  # in one transaction
RESERVATIONS_KEPT = timedelta(days=7)  # after their end: so long a repeated request gets its first answer
METERS_KEPT = timedelta(days=45)  # after their window: longer than the longest grace of periods
ENFORCEMENT_DELETED = 5_000  # in one transaction
INTERVAL = 3_600.0  # seconds
RETRY_INTERVAL = 5.0  # seconds at most between two tries while the database is away

logger = logging.getLogger(__name__)


class Upkeep:
    """Keeps a partition for every month that needs one, and deletes what has passed its retention."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        retention: timedelta,
        notification_retention: timedelta,
        *,
        audit_retention: timedelta = timedelta(days=DEFAULT_AUDIT_RETENTION),
        backoff: Backoff | None = None,
        notifications_deleted: int = NOTIFICATIONS_DELETED,
    ) -> None:
        self._database = database
        self._clock = clock
        self._retention = retention
        self._notification_retention = notification_retention
        self._audit_retention = audit_retention
        self._notifications_deleted = notifications_deleted
        self.task = BackgroundTask(
            self.run_once,
            FailureLog(
                logger,
                "upkeep failed and will be tried again",
                LogAction.UPKEEP_FAILED,
                (DatabaseUnavailable,),
                "upkeep waits for the database: %s",
                LogAction.DATABASE_LOST,
            ),
            name="upkeep",
            interval=INTERVAL,
            first_pause=INTERVAL,
            backoff=backoff or Backoff(RETRY_INTERVAL, RETRY_INTERVAL),
        )

    async def run_once(self) -> None:
        """Makes and drops what is due. Raises DatabaseUnavailable."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            await partitions.maintain(connection, now - self._retention, now + AHEAD, now - self._retention)
            await audit_partitions.maintain(connection, now, now + AHEAD, now - self._audit_retention)
            await voids.delete_before(connection, partitions.month_start(now - self._retention))
            await idempotent_answers.delete_before(connection, now - REPLAY_LIFETIME)
            await omitted.delete_before(connection, now - self._notification_retention)
        keep_from = now - self._notification_retention
        # Only organizations with something to do: a start must not run a transaction for each one that exists.
        async with self._database.transaction() as connection:
            to_complete = await alarms.organizations_to_complete(connection)
            to_delete = await notification_history.organizations_with_older(connection, keep_from)
        await self._delete_of_enforcement(now)
        for organization_id in to_complete:
            completed = STATES_COMPLETED
            while completed == STATES_COMPLETED:
                async with self._database.transaction() as connection:
                    completed = await alarms.complete(connection, organization_id, STATES_COMPLETED)
        for organization_id in to_delete:
            deleted = limit = self._notifications_deleted
            while deleted == limit:
                async with self._database.transaction() as connection:
                    deleted = await notification_history.delete_before(connection, organization_id, keep_from, limit)

    async def _delete_of_enforcement(self, now: datetime) -> None:
        """Deletes reservations that ended long ago, and meters of old windows."""
        for delete, before in (
            (expiring.delete_ended, now - RESERVATIONS_KEPT),
            (meters.delete_before, now - METERS_KEPT),
        ):
            deleted = ENFORCEMENT_DELETED
            while deleted == ENFORCEMENT_DELETED:
                async with self._database.raw_transaction() as connection:
                    deleted = await delete(connection, before, ENFORCEMENT_DELETED)

    async def start(self) -> None:
        """Runs once, before the first event comes, and from then on regularly.

        A worker of a cluster that is away, or a shard that is being moved, keeps no process from starting: the other
        customers need it. It runs again soon. Raises DatabaseUnavailable if events have no place.
        """
        try:
            await repeated(self.run_once)
        except DatabaseUnavailable as error:
            async with self._database.reading() as connection:
                months = await partitions.existing_months(connection)
            if partitions.month_start(self._clock.now()) not in months:
                raise
            logger.warning("upkeep waits for the database: %s", error, extra={"action": LogAction.DATABASE_LOST})
            self.task.wake()
        self.task.start()

    async def stop(self) -> None:
        """Ends the task."""
        await self.task.stop()
