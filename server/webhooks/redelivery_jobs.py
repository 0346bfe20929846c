"""WebhookService: redelivery jobs."""

from generated.tidemark.v1 import webhook_service_pb2 as messages
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validation import Violations
from server.mapping.webhooks import job_message
from server.webhooks.errors import redelivery_job_not_found
from store.deliveries import redelivery_jobs
from store.postgres.database import Database


class RedeliveryJobHandlers:
    """Serves the RPCs for redelivery jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetRedeliveryJob(
        self, request: messages.GetRedeliveryJobRequest, context: Context
    ) -> messages.GetRedeliveryJobResponse:
        """One redelivery job."""
        violations = Violations()
        job_id = violations.identifier("job_id", request.job_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            job = await redelivery_jobs.get(connection, current_organization().organization_id, job_id)
        if job is None:
            raise redelivery_job_not_found(job_id)
        return messages.GetRedeliveryJobResponse(job=job_message(job))

    async def ListRedeliveryJobs(
        self, request: messages.ListRedeliveryJobsRequest, context: Context
    ) -> messages.ListRedeliveryJobsResponse:
        """A page of redelivery jobs, the newest first."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id, required=False)
        page = read_page(
            violations, request.page_size, request.page_token, "ListRedeliveryJobs", (endpoint_id,), BY_TIME
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await redelivery_jobs.list_page(
                connection,
                current_organization().organization_id,
                endpoint_id=endpoint_id or None,
                after=after_time_and_id(page),
                limit=page.limit,
            )
        answer = messages.ListRedeliveryJobsResponse()
        page = await page.cut_into(answer.jobs, map(job_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.create_time, row.job_id))
        return answer
