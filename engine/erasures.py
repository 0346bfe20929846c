"""The task that erases customers, a small transaction at a time, on any replica that is free."""

import logging

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.erasures import jobs, steps
from store.erasures.jobs import ErasureJob
from store.erasures.steps import ROWS_AT_ONCE
from store.postgres.database import Database, DatabaseUnavailable

JOBS_AT_ONCE = 50  # jobs that take turns
POLLING_INTERVAL = 2.0  # seconds; for deliveries that were being attempted, and for what a replica left when it died

logger = logging.getLogger(__name__)


class Erasures:
    """Carries out erasure jobs until it is stopped."""

    def __init__(self, database: Database, clock: Clock, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
        """`rows_at_once`: of one transaction."""
        self._database = database
        self._clock = clock
        self._rows_at_once = rows_at_once
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger,
                "erasures failed and will go on",
                LogAction.ERASURE_FAILED,
                (DatabaseUnavailable,),
                "erasures wait for the database: %s",
                LogAction.DATABASE_LOST,
            ),
            name="erasures",
            interval=POLLING_INTERVAL,
            backoff=Backoff(longest=POLLING_INTERVAL),
        )

    def start(self) -> None:
        """Begins to work, with what earlier processes left."""
        self._task.start()

    def wake(self) -> None:
        """Says that there is a new job; to be called after the commit."""
        self._task.wake()

    async def stop(self) -> None:
        """Ends after the current transaction or its rollback; what is left waits for another process."""
        await self._task.stop()

    async def work_once(self) -> bool:
        """One step of each job that no other replica works on; returns whether any moved.

        Raises DatabaseUnavailable.
        """
        async with self._database.transaction() as connection:
            found = await jobs.running(connection, JOBS_AT_ONCE)
        moved = [await self._step(job) for job in found]
        return any(moved)

    async def _step(self, job: ErasureJob) -> bool:
        try:
            async with self._database.transaction() as connection:
                return await steps.step(
                    connection, job.organization_id, job.job_id, self._clock.now(), limit=self._rows_at_once
                )
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            return False
        except Exception:
            # It waits for the next round; those behind it do not wait for it.
            logger.exception(
                "a step of the erasure job %s failed and will be tried again",
                job.job_id,
                extra={"action": LogAction.ERASURE_FAILED, "job_id": job.job_id},
            )
            return False

    async def _work(self) -> None:
        while await self.work_once():
            pass
