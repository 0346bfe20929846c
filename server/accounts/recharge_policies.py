"""AccountService: recharge policies."""

from engine.facts.changes import FactChanges
from evaluator.changed_facts import ChangedFacts
from generated.tidemark.v1 import account_service_pb2
from runtime.clock import Clock
from server.accounts.errors import recharge_policy_not_found
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TWO_IDS, after_two_ids, read_page
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.recharges import policy_message, read_policy, read_policy_state
from store.accounts.puts import Put
from store.postgres.database import Connection, Database
from store.recharges import policies, policy_deletion
from store.recharges.policies import PolicyFilter, StoredPolicy


class RechargePolicyHandlers:
    """Serves the RPCs for recharge policies."""

    def __init__(self, database: Database, clock: Clock, changes: FactChanges) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def PutRechargePolicy(
        self, request: account_service_pb2.PutRechargePolicyRequest, context: Context
    ) -> account_service_pb2.PutRechargePolicyResponse:
        """Creates or replaces a policy, unless a newer fact about it is stored; evaluates it."""
        fact = read_policy(Violations(), "recharge_policy", request.recharge_policy, self._clock.now())
        organization = current_organization()

        async def change(connection: Connection) -> tuple[Put[StoredPolicy], ChangedFacts]:
            put = await policies.put(connection, organization.organization_id, fact, self._clock.now())
            await self._record(connection, put)
            return put, ChangedFacts(recharge_policies=() if put.superseded else (fact.balance_id,))

        async with transaction_of(self._database, request.validate_only) as connection:
            put = await self._changes.apply(connection, organization, fact.customer_id, change)
            stored = await self._evaluated(connection, fact.customer_id, fact.balance_id)
        return account_service_pb2.PutRechargePolicyResponse(
            recharge_policy=policy_message(stored), superseded=put.superseded
        )

    async def GetRechargePolicy(
        self, request: account_service_pb2.GetRechargePolicyRequest, context: Context
    ) -> account_service_pb2.GetRechargePolicyResponse:
        """One policy."""
        customer_id, balance_id = _read_key(request)
        async with self._database.transaction() as connection:
            stored = await self._evaluated(connection, customer_id, balance_id)
        return account_service_pb2.GetRechargePolicyResponse(recharge_policy=policy_message(stored))

    async def ListRechargePolicies(
        self, request: account_service_pb2.ListRechargePoliciesRequest, context: Context
    ) -> account_service_pb2.ListRechargePoliciesResponse:
        """A page of policies, by customer and balance."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        state = read_policy_state(violations, "state", request.state)
        filters = customer_id, state or ""
        page = read_page(
            violations, request.page_size, request.page_token, "ListRechargePolicies", filters, BY_TWO_IDS
        )
        violations.raise_if_any()
        wanted = PolicyFilter(customer_id or None, state)
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await policies.list_page(
                connection, organization_id, wanted, after=after_two_ids(page), limit=page.limit
            )
            total_size = None
            if request.include_total_size:
                total_size = await policies.count(connection, organization_id, wanted)
        answer = account_service_pb2.ListRechargePoliciesResponse(total_size=total_size)
        page = await page.cut_into(answer.recharge_policies, map(policy_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.policy.customer_id, row.policy.balance_id))
        return answer

    async def DeleteRechargePolicy(
        self, request: account_service_pb2.DeleteRechargePolicyRequest, context: Context
    ) -> account_service_pb2.DeleteRechargePolicyResponse:
        """Removes a policy; cancels its open recharge."""
        customer_id, balance_id = _read_key(request)
        async with transaction_of(self._database, request.validate_only) as connection:
            now = self._clock.now()
            organization_id = current_organization().organization_id
            deleted = await policy_deletion.delete(connection, organization_id, customer_id, balance_id, now)
            if deleted is not None:
                await record(connection, now, changed(policy_message(deleted), None))
        if deleted is None and not request.allow_missing:
            raise recharge_policy_not_found(customer_id, balance_id)
        return account_service_pb2.DeleteRechargePolicyResponse()

    async def EnableRechargePolicy(
        self, request: account_service_pb2.EnableRechargePolicyRequest, context: Context
    ) -> account_service_pb2.EnableRechargePolicyResponse:
        """Switches a policy on again that has switched itself off; evaluates it."""
        customer_id, balance_id = _read_key(request)
        organization = current_organization()

        async def change(connection: Connection) -> tuple[None, ChangedFacts]:
            put = await policies.enable(connection, organization.organization_id, customer_id, balance_id)
            await self._record(connection, put)
            return None, ChangedFacts(recharge_policies=(balance_id,))

        async with transaction_of(self._database, request.validate_only) as connection:
            await self._changes.apply(connection, organization, customer_id, change)
            stored = await self._evaluated(connection, customer_id, balance_id)
        return account_service_pb2.EnableRechargePolicyResponse(recharge_policy=policy_message(stored))

    async def _evaluated(self, connection: Connection, customer_id: str, balance_id: str) -> StoredPolicy:
        """The policy as it is now. Raises NotFound."""
        organization_id = current_organization().organization_id
        stored = await policies.get(connection, organization_id, customer_id, balance_id)
        if stored is None:
            raise recharge_policy_not_found(customer_id, balance_id)
        return stored

    async def _record(self, connection: Connection, put: Put[StoredPolicy]) -> None:
        """Records a changed policy in the audit log."""
        if put.changed:
            before = None if put.previous is None else policy_message(put.previous)
            await record(connection, self._clock.now(), changed(before, policy_message(put.stored)))


def _read_key(
    request: account_service_pb2.GetRechargePolicyRequest
    | account_service_pb2.DeleteRechargePolicyRequest
    | account_service_pb2.EnableRechargePolicyRequest,
) -> tuple[str, str]:
    """The customer and the balance of a request. Raises InvalidArgument."""
    violations = Violations()
    key = (
        violations.identifier("customer_id", request.customer_id),
        violations.identifier("balance_id", request.balance_id),
    )
    violations.raise_if_any()
    return key
