"""AccountService: recharges."""

from engine.facts.changes import FactChanges
from evaluator.balances import Holding
from evaluator.changed_facts import ChangedFacts
from generated.tidemark.v1 import account_service_pb2
from runtime.clock import Clock
from server.accounts.errors import recharge_not_found
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.balances import balance_message
from server.mapping.recharges import policy_message, read_recharge_state, read_result, recharge_message
from store.balances.holdings import holding_of
from store.postgres.database import Connection, Database
from store.recharges import policies, recharges
from store.recharges.recharges import RechargeFilter
from store.recharges.reports import Reported, report


class RechargeHandlers:
    """Serves the RPCs for recharges."""

    def __init__(self, database: Database, clock: Clock, changes: FactChanges) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def GetRecharge(
        self, request: account_service_pb2.GetRechargeRequest, context: Context
    ) -> account_service_pb2.GetRechargeResponse:
        """One recharge."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        recharge_id = violations.identifier("recharge_id", request.recharge_id)
        violations.raise_if_any()
        async with self._database.reading() as connection:
            organization_id = current_organization().organization_id
            stored = await recharges.get(connection, organization_id, customer_id, recharge_id)
        if stored is None:
            raise recharge_not_found(customer_id, recharge_id)
        return account_service_pb2.GetRechargeResponse(recharge=recharge_message(stored))

    async def ListRecharges(
        self, request: account_service_pb2.ListRechargesRequest, context: Context
    ) -> account_service_pb2.ListRechargesResponse:
        """A page of recharges, the newest first."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        balance_id = violations.identifier("balance_id", request.balance_id, required=False)
        if balance_id and not customer_id:
            violations.add("balance_id", "balances are found by their customer: give customer_id as well")
        state = read_recharge_state(violations, "state", request.state)
        filters = customer_id, balance_id, state or ""
        page = read_page(violations, request.page_size, request.page_token, "ListRecharges", filters, BY_TIME)
        violations.raise_if_any()
        wanted = RechargeFilter(customer_id or None, balance_id or None, state)
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await recharges.list_page(
                connection, organization_id, wanted, after=after_time_and_id(page), limit=page.limit
            )
            total_size = None
            if request.include_total_size:
                total_size = await recharges.count(connection, organization_id, wanted)
        answer = account_service_pb2.ListRechargesResponse(total_size=total_size)
        page = await page.cut_into(answer.recharges, map(recharge_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.create_time, row.recharge_id))
        return answer

    async def ReportRecharge(
        self, request: account_service_pb2.ReportRechargeRequest, context: Context
    ) -> account_service_pb2.ReportRechargeResponse:
        """Closes a recharge, once; adds what was paid to the balance, and evaluates the policy."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        recharge_id = violations.identifier("recharge_id", request.recharge_id)
        result = read_result(violations, request)
        violations.raise_if_any()
        organization = current_organization()

        async def change(connection: Connection) -> tuple[Reported, ChangedFacts]:
            done = await report(
                connection, organization.organization_id, customer_id, recharge_id, result, self._clock.now()
            )
            if done.previous is None:
                return done, ChangedFacts()
            await self._record(connection, done)
            touched: tuple[Holding, ...] = ()
            if done.balance is not None and done.balance.previous is not None:
                touched = tuple(map(holding_of, (done.balance.previous, done.balance.balance)))
            return done, ChangedFacts(balances=touched, recharge_policies=(done.recharge.balance_id,))

        async with transaction_of(self._database, request.validate_only) as connection:
            done = await self._changes.apply(connection, organization, customer_id, change)
            policy = await policies.get(
                connection, organization.organization_id, customer_id, done.recharge.balance_id
            )
        return account_service_pb2.ReportRechargeResponse(
            recharge=recharge_message(done.recharge),
            recharge_policy=None if policy is None else policy_message(policy),
            replayed=done.previous is None,
        )

    async def _record(self, connection: Connection, done: Reported) -> None:
        """Records a reported recharge, and the balance that it changed, in the audit log."""
        assert done.previous is not None, "only what changed"
        now = self._clock.now()
        entries = [changed(recharge_message(done.previous), recharge_message(done.recharge))]
        if done.balance is not None and done.balance.previous is not None:
            before, after = (balance_message(one, now) for one in (done.balance.previous, done.balance.balance))
            entries.append(changed(before, after))
        await record(connection, now, *entries)
