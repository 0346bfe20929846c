"""AccountService: plans."""

from generated.tidemark.v1 import account_service_pb2
from runtime.clock import Clock
from server.accounts.errors import plan_not_found
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import read_page
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.custom_fields import read_custom_fields
from server.mapping.plans import plan_message, read_as_of_time
from store.accounts import plans
from store.accounts.plans import PlanFact
from store.postgres.database import Database


class PlanHandlers:
    """Serves the RPCs for plans."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def PutPlan(
        self, request: account_service_pb2.PutPlanRequest, context: Context
    ) -> account_service_pb2.PutPlanResponse:
        """Creates or replaces a plan, unless a newer fact about it is stored."""
        now = self._clock.now()
        violations = Violations()
        sent = request.plan
        plan_id = violations.identifier("plan.plan_id", sent.plan_id)
        display_name = violations.text("plan.display_name", sent.display_name)
        custom_fields = read_custom_fields(violations, "plan.custom_fields", sent.custom_fields)
        as_of_time = read_as_of_time(violations, "plan", sent, now)
        violations.raise_if_any()
        fact = PlanFact(
            plan_id=plan_id, display_name=display_name, custom_fields=custom_fields, as_of_time=as_of_time
        )
        async with transaction_of(self._database, request.validate_only) as connection:
            put = await plans.put(connection, current_organization().organization_id, fact, now)
            if put.changed:
                before = None if put.previous is None else plan_message(put.previous)
                await record(connection, now, changed(before, plan_message(put.stored)))
        return account_service_pb2.PutPlanResponse(plan=plan_message(put.stored), superseded=put.superseded)

    async def GetPlan(
        self, request: account_service_pb2.GetPlanRequest, context: Context
    ) -> account_service_pb2.GetPlanResponse:
        """One plan."""
        violations = Violations()
        plan_id = violations.identifier("plan_id", request.plan_id)
        violations.raise_if_any()
        async with self._database.reading() as connection:
            stored = await plans.get(connection, current_organization().organization_id, plan_id)
        if stored is None:
            raise plan_not_found(plan_id)
        return account_service_pb2.GetPlanResponse(plan=plan_message(stored))

    async def DeletePlan(
        self, request: account_service_pb2.DeletePlanRequest, context: Context
    ) -> account_service_pb2.DeletePlanResponse:
        """Removes a plan that nothing uses."""
        violations = Violations()
        plan_id = violations.identifier("plan_id", request.plan_id)
        violations.raise_if_any()
        async with transaction_of(self._database, request.validate_only) as connection:
            deleted = await plans.delete(connection, current_organization().organization_id, plan_id)
            if deleted is not None:
                await record(connection, self._clock.now(), changed(plan_message(deleted), None))
        if deleted is None and not request.allow_missing:
            raise plan_not_found(plan_id)
        return account_service_pb2.DeletePlanResponse()

    async def ListPlans(
        self, request: account_service_pb2.ListPlansRequest, context: Context
    ) -> account_service_pb2.ListPlansResponse:
        """A page of plans, by id."""
        violations = Violations()
        page = read_page(violations, request.page_size, request.page_token, "ListPlans", (), (str,))
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await plans.list_page(
                connection,
                organization_id,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
            total_size = await plans.count(connection, organization_id) if request.include_total_size else None
        answer = account_service_pb2.ListPlansResponse(total_size=total_size)
        page = await page.cut_into(answer.plans, map(plan_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.plan_id,))
        return answer
