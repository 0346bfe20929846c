"""Job tasks: durable jobs are carried out a small transaction at a time, on any replica that is free."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres.database import Connection, Database, DatabaseUnavailable
from store.postgres.retries import past_conflicts

JOBS_AT_ONCE = 50  # jobs that take turns
POLLING_INTERVAL = 2.0  # seconds; for what had to wait, and for what a replica left when it died

logger = logging.getLogger(__name__)


class Job(Protocol):
    """A durable job, as its store reads it."""

    @property
    def organization_id(self) -> int:
        """The organization of the job."""
        ...

    @property
    def job_id(self) -> str:
        """Its id, unique in its organization."""
        ...


JobOf = TypeVar("JobOf", bound=Job)

# Up to so many running jobs, in the order of their turns.
Running = Callable[[Connection, int], Awaitable[Sequence[JobOf]]]
# One transaction of a job; returns whether it did anything. False also if another replica works on the job.
Step = Callable[[Connection, JobOf], Awaitable[bool]]


class JobTask(Generic[JobOf]):
    """Carries out jobs of one kind until it is stopped."""

    def __init__(
        self, database: Database, running: Running[JobOf], step: Step[JobOf], *, name: str, failed: LogAction
    ) -> None:
        """name: of the jobs, in log lines. failed: the action of the log line of a step that failed."""
        self._database = database
        self._running = running
        self._step = step
        self._name = name
        self._failed = failed
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger,
                f"{name} failed and will go on",
                failed,
                (DatabaseUnavailable,),
                f"{name} wait for the database: %s",
                LogAction.DATABASE_LOST,
            ),
            name=name,
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
            found = await self._running(connection, JOBS_AT_ONCE)
        moved = [await self._take_step(job) for job in found]
        return any(moved)

    async def _take_step(self, job: JobOf) -> bool:
        try:
            return await past_conflicts(lambda: self._transaction_of(job))
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            return False
        except Exception:
            # It waits for the next round; those behind it do not wait for it.
            logger.exception(
                "a step of the job %s failed and will be tried again (%s)",
                job.job_id,
                self._name,
                extra={"action": self._failed, "job_id": job.job_id},
            )
            return False

    async def _transaction_of(self, job: JobOf) -> bool:
        async with self._database.transaction() as connection:
            return await self._step(connection, job)

    async def _work(self) -> None:
        while await self.work_once():
            pass
