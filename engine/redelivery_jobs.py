"""The task that carries out redelivery jobs, a small transaction at a time, by whichever replica is free."""

import logging

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.deliveries import redelivery_jobs, redelivery_steps
from store.deliveries.redelivery_jobs import Job
from store.deliveries.redelivery_steps import DUE_LIMIT, STEP_LIMIT
from store.postgres.database import Database, DatabaseUnavailable

JOBS_AT_ONCE = 50  # jobs that take turns
POLLING_INTERVAL = 2.0  # seconds; for endpoints that had enough to do, and for what a replica left when it died

logger = logging.getLogger(__name__)


class RedeliveryJobs:
    """Carries out jobs until it is stopped."""

    def __init__(
        self, database: Database, clock: Clock, *, step_limit: int = STEP_LIMIT, due_limit: int = DUE_LIMIT
    ) -> None:
        """For the limits see `store.deliveries.redelivery_steps`."""
        self._database = database
        self._clock = clock
        self._step_limit = step_limit
        self._due_limit = due_limit
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger,
                "redelivery jobs failed and will go on",
                LogAction.REDELIVERY_FAILED,
                (DatabaseUnavailable,),
                "redelivery jobs wait for the database: %s",
                LogAction.DATABASE_LOST,
            ),
            name="redelivery jobs",
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
            jobs = await redelivery_jobs.running(connection, JOBS_AT_ONCE)
        moved = [await self._step(job) for job in jobs]
        return any(moved)

    async def _step(self, job: Job) -> bool:
        try:
            async with self._database.transaction() as connection:
                return await redelivery_steps.step(
                    connection,
                    job.organization_id,
                    job.job_id,
                    self._clock.now(),
                    step_limit=self._step_limit,
                    due_limit=self._due_limit,
                )
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            return False
        except Exception:
            # It waits for the next round; those behind it do not wait for it.
            logger.exception(
                "a step of the redelivery job %s failed and will be tried again",
                job.job_id,
                extra={"action": LogAction.REDELIVERY_FAILED, "job_id": job.job_id},
            )
            return False

    async def _work(self) -> None:
        while await self.work_once():
            pass
