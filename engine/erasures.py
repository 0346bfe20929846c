"""The task that erases customers."""

from engine.job_task import JobTask
from runtime.actions import LogAction
from runtime.clock import Clock
from store.erasures import jobs, steps
from store.erasures.jobs import ErasureJob
from store.erasures.steps import ROWS_AT_ONCE
from store.postgres.database import Connection, Database


class Erasures(JobTask[ErasureJob]):
    """Carries out erasure jobs until it is stopped. Deliveries that are being attempted make a job wait."""

    def __init__(self, database: Database, clock: Clock, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
        """`rows_at_once`: of one transaction."""

        async def step(connection: Connection, job: ErasureJob) -> bool:
            return await steps.step(connection, job.organization_id, job.job_id, clock.now(), limit=rows_at_once)

        super().__init__(database, jobs.running, step, name="erasures", failed=LogAction.ERASURE_FAILED)
