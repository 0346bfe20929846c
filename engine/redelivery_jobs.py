"""The task that carries out redelivery jobs."""

from engine.job_task import JobTask
from runtime.actions import LogAction
from runtime.clock import Clock
from store.deliveries import redelivery_jobs, redelivery_steps
from store.deliveries.redelivery_jobs import RedeliveryJob
from store.deliveries.redelivery_steps import DUE_LIMIT, STEP_LIMIT
from store.postgres.database import Connection, Database


class RedeliveryJobs(JobTask[RedeliveryJob]):
    """Carries out jobs until it is stopped. Endpoints that have enough to do make a job wait."""

    def __init__(
        self, database: Database, clock: Clock, *, step_limit: int = STEP_LIMIT, due_limit: int = DUE_LIMIT
    ) -> None:
        """For the limits see `store.deliveries.redelivery_steps`."""

        async def step(connection: Connection, job: RedeliveryJob) -> bool:
            return await redelivery_steps.step(
                connection,
                job.organization_id,
                job.job_id,
                clock.now(),
                step_limit=step_limit,
                due_limit=due_limit,
            )

        super().__init__(
            database, redelivery_jobs.running, step, name="redelivery jobs", failed=LogAction.REDELIVERY_FAILED
        )
