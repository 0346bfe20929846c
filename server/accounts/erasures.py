"""AccountService: the erasure of customers."""

from engine.erasures import Erasures
from generated.tidemark.v1 import account_service_pb2 as messages
from runtime.clock import Clock
from server.accounts.errors import erasure_job_not_found
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.idempotency import answer_once, read_request_id
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.erasures import erasure_job_message
from store.erasures import jobs
from store.postgres.database import Connection, Database


class ErasureHandlers:
    """Serves the RPCs that erase customers."""

    def __init__(self, database: Database, clock: Clock, erasures: Erasures) -> None:
        self._database = database
        self._clock = clock
        self._erasures = erasures

    async def DeleteCustomer(
        self, request: messages.DeleteCustomerRequest, context: Context
    ) -> messages.DeleteCustomerResponse:
        """Begins the erasure of a customer, or returns the job that runs already."""
        violations = Violations()
        read_request_id(violations, request.request_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()

        async def begin(connection: Connection) -> messages.DeleteCustomerResponse:
            organization_id = current_organization().organization_id
            now = self._clock.now()
            job, is_new = await jobs.begin(connection, organization_id, customer_id, now)
            if is_new:
                await record(connection, now, changed(None, erasure_job_message(job)))
            return messages.DeleteCustomerResponse(job=erasure_job_message(job))

        answer = await answer_once(
            self._database, self._clock, "DeleteCustomer", request, messages.DeleteCustomerResponse, begin
        )
        if not request.validate_only:
            self._erasures.wake()
        return answer

    async def GetErasureJob(
        self, request: messages.GetErasureJobRequest, context: Context
    ) -> messages.GetErasureJobResponse:
        """One erasure job."""
        violations = Violations()
        job_id = violations.identifier("job_id", request.job_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            job = await jobs.get(connection, current_organization().organization_id, job_id)
        if job is None:
            raise erasure_job_not_found(job_id)
        return messages.GetErasureJobResponse(job=erasure_job_message(job))

    async def ListErasureJobs(
        self, request: messages.ListErasureJobsRequest, context: Context
    ) -> messages.ListErasureJobsResponse:
        """A page of erasure jobs, the newest first."""
        violations = Violations()
        page = read_page(violations, request.page_size, request.page_token, "ListErasureJobs", (), BY_TIME)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await jobs.list_page(
                connection,
                current_organization().organization_id,
                after=after_time_and_id(page),
                limit=page.limit,
            )
        answer = messages.ListErasureJobsResponse()
        page = await page.cut_into(answer.jobs, map(erasure_job_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.create_time, row.job_id))
        return answer
