"""AccountService: limits."""

from engine.backfill.backfills import Backfills
from engine.puts.fact_puts import FactPuts
from engine.puts.kinds_of_puts import LimitPut
from generated.tidemark.v1 import account_service_pb2
from runtime.clock import Clock
from server.accounts.errors import limit_not_found
from server.calls.context import Context
from server.calls.current_call import current_cause, current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.audited_resources import Describing, changed
from server.mapping.limits import read_enforcement
from server.mapping.plans import limit_message, read_amount, read_as_of_time, read_subject
from store.audit.entries import NewEntry
from store.limits import limits
from store.limits.limits import LimitFact, LimitFilter
from store.postgres.database import Database


class LimitHandlers:
    """Serves the RPCs for limits."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        puts: FactPuts,
        backfills: Backfills,
    ) -> None:
        self._database = database
        self._clock = clock
        self._puts = puts
        self._backfills = backfills

    async def PutLimit(
        self, request: account_service_pb2.PutLimitRequest, context: Context
    ) -> account_service_pb2.PutLimitResponse:
        """Creates a limit or changes it, unless a newer fact is stored; evaluates its customers."""
        now = self._clock.now()
        violations = Violations()
        sent = request.limit
        limit_id = violations.identifier("limit.limit_id", sent.limit_id)
        display_name = violations.text("limit.display_name", sent.display_name)
        subject = read_subject(violations, "limit", sent)
        amount = read_amount(violations, "limit.amount", sent.amount)
        enforcement = read_enforcement(violations, "limit.enforcement", sent.enforcement)
        as_of_time = read_as_of_time(violations, "limit", sent, now)
        violations.raise_if_any()
        fact = LimitFact(limit_id, subject, amount, as_of_time, display_name, enforcement)
        organization = current_organization()
        named = unknown_ids.of_limit(subject)
        wanted = LimitPut(fact, named.ids)
        describe = Describing(limit_message)
        put = await self._puts.limits.put(organization, wanted, describe, validate_only=request.validate_only)
        if put.changed and subject.plan_id is not None and not request.validate_only:
            self._backfills.wake(organization.organization_id)
        unknown = wanted.unknown
        if put.stored.subject != subject:  # a newer fact was stored
            named = unknown_ids.of_limit(put.stored.subject)
            unknown = await self._puts.unknown(organization, named.ids)
        return account_service_pb2.PutLimitResponse(
            limit=describe.message(put.stored),
            superseded=put.superseded,
            warnings=unknown_ids.warnings(named, unknown),
        )

    async def GetLimit(
        self, request: account_service_pb2.GetLimitRequest, context: Context
    ) -> account_service_pb2.GetLimitResponse:
        """One limit."""
        violations = Violations()
        limit_id = violations.identifier("limit_id", request.limit_id)
        violations.raise_if_any()
        async with self._database.reading() as connection:
            stored = await limits.get(connection, current_organization().organization_id, limit_id)
        if stored is None:
            raise limit_not_found(limit_id)
        return account_service_pb2.GetLimitResponse(limit=limit_message(stored))

    async def DeleteLimit(
        self, request: account_service_pb2.DeleteLimitRequest, context: Context
    ) -> account_service_pb2.DeleteLimitResponse:
        """Removes a limit; evaluates its customers."""
        violations = Violations()
        limit_id = violations.identifier("limit_id", request.limit_id)
        violations.raise_if_any()
        organization = current_organization()
        cause = current_cause()
        deleted = await self._puts.limit_deletions.delete(
            organization,
            limit_id,
            lambda stored: NewEntry(cause, changed(limit_message(stored), None)),
            validate_only=request.validate_only,
        )
        if not deleted and not request.allow_missing:
            raise limit_not_found(limit_id)
        if deleted and not request.validate_only:
            self._backfills.wake(organization.organization_id)
        return account_service_pb2.DeleteLimitResponse()

    async def ListLimits(
        self, request: account_service_pb2.ListLimitsRequest, context: Context
    ) -> account_service_pb2.ListLimitsResponse:
        """A page of limits, by id."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        plan_id = violations.identifier("plan_id", request.plan_id, required=False)
        page = read_page(
            violations, request.page_size, request.page_token, "ListLimits", (customer_id, plan_id), (str,)
        )
        violations.raise_if_any()
        wanted = LimitFilter(customer_id or None, plan_id or None)
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await limits.list_page(
                connection,
                organization_id,
                wanted,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
            total_size = None
            if request.include_total_size:
                total_size = await limits.count(connection, organization_id, wanted)
        answer = account_service_pb2.ListLimitsResponse(total_size=total_size)
        page = await page.cut_into(answer.limits, map(limit_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.limit_id,))
        return answer
