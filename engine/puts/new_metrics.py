"""A new metric: alerts that were created before it are evaluated on the stored raw events that count in it.

The transaction that creates the metric holds the organization's lock exclusively, and usage waits for it. So it
begins the backfills of the first of these alerts only. The others follow in transactions of their own, which stop
nothing.
"""

import asyncio
import logging
import time

from engine.backfill.backfills import Backfills
from engine.changes.open_change import OpenChange
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.alerts import backfills_of_metrics
from store.alerts.backfills_of_metrics import PartSize
from store.identity import organizations
from store.postgres.database import Database, DatabaseUnavailable, driver

METRICS_AT_ONCE = 50  # that take turns
POLLING_INTERVAL = 5.0  # seconds; for what another process left when it ended
RETRY_INTERVAL = 1.0  # seconds at most between two tries while the database is away

logger = logging.getLogger(__name__)


async def begin_backfills(change: OpenChange, metric_id: str, part: PartSize) -> None:
    """Begins backfills of the first alerts on usage of a metric, in the transaction that creates it.

    Wake `NewMetrics` after its commit.
    """
    last = await backfills_of_metrics.begin_part(change.driver, change.organization_id, metric_id, "", part)
    if last is not None:
        await backfills_of_metrics.keep(change.driver, change.organization_id, metric_id, last)


class NewMetrics:
    """The task that begins the backfills of the other alerts on new metrics."""

    def __init__(self, database: Database, backfills: Backfills, part: PartSize) -> None:
        """part: what one transaction does for one metric."""
        self._database = database
        self._part_size = part
        self._backfills = backfills
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger,
                "backfills of alerts on new metrics could not begin; this will be tried again",
                LogAction.BACKFILLS_FAILED,
                (DatabaseUnavailable,),
            ),
            name="new-metrics",
            interval=POLLING_INTERVAL,
            backoff=Backoff(longest=RETRY_INTERVAL),
        )

    def start(self) -> None:
        """Starts the task, with what earlier processes left."""
        self._task.start()

    def wake(self, organization_id: int) -> None:
        """Says that a metric with an event name was created in that organization; to be called after the commit."""
        self._backfills.wake(organization_id)
        self._task.wake()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is left waits for the next process."""
        await self._task.stop()

    async def run_once(self) -> bool:
        """Begins one part of each metric that has any left; returns whether there was any that is free."""
        async with self._database.transaction() as connection:
            found = await backfills_of_metrics.waiting(await driver(connection), METRICS_AT_ONCE)
        return any([await self._part(*one) for one in found])

    async def _work(self) -> None:
        started = time.perf_counter()
        while await self.run_once():
            await asyncio.sleep(time.perf_counter() - started)  # so that usage has the database half of the time
            started = time.perf_counter()

    async def _part(self, organization_id: int, metric_id: str) -> bool:
        try:
            async with self._database.transaction() as connection:
                await organizations.lock_shared(connection, organization_id)
                raw = await driver(connection)
                after = await backfills_of_metrics.claim(raw, organization_id, metric_id)
                if after is None:
                    return False
                last = await backfills_of_metrics.begin_part(raw, organization_id, metric_id, after, self._part_size)
                await backfills_of_metrics.keep(raw, organization_id, metric_id, last)
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            return False  # those of other organizations do not wait for a lock of this one
        self._backfills.wake(organization_id)
        return True
