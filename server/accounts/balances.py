"""AccountService: balances."""

from engine.facts.changes import FactChanges
from evaluator.amounts import format_decimal
from evaluator.changed_facts import ChangedFacts
from generated.tidemark.v1 import account_service_pb2
from runtime.clock import Clock
from server.accounts.errors import balance_not_found
from server.calls.answer_size import DEFAULT_ROOM, fitting
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TWO_IDS, after_two_ids, read_page
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.balance_ledger import entry_message, overage_message
from server.mapping.balances import (
    balance_message,
    read_balance,
    read_decrement,
    read_kinds,
)
from server.mapping.custom_fields import read_custom_fields
from store.accounts.puts import Put
from store.audit.entries import Changed, ResourceType
from store.balances import balances, overages
from store.balances import changes as balance_changes
from store.balances import entries as balance_entries
from store.balances.adjustments import Adjustment, adjust
from store.balances.balances import BalanceFilter, StoredBalance
from store.balances.changes import BalanceChange
from store.balances.decrements import Decremented, decrement
from store.balances.holdings import holding_of
from store.postgres.database import Connection, Database, driver


class BalanceHandlers:
    """Serves the RPCs for balances."""

    def __init__(self, database: Database, clock: Clock, changes: FactChanges) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def PutBalance(
        self, request: account_service_pb2.PutBalanceRequest, context: Context
    ) -> account_service_pb2.PutBalanceResponse:
        """Creates or replaces a balance, unless a newer fact about it is stored or it was voided."""
        now = self._clock.now()
        fact = read_balance(Violations(), "balance", request.balance, now)
        organization = current_organization()

        async def change(connection: Connection) -> tuple[Put[StoredBalance], ChangedFacts]:
            # The time is read again under the lock, because the ledger's times rise with its numbers.
            put = await balance_changes.put(
                connection,
                organization.organization_id,
                fact,
                self._clock.now(),
                only_if_new=request.only_if_new,
            )
            await self._record(connection, put.changed, put.previous, put.stored)
            return put, _touched(put.changed, put.previous, put.stored)

        async with transaction_of(self._database, request.validate_only) as connection:
            put = await self._changes.apply(connection, organization, fact.customer_id, change)
        return account_service_pb2.PutBalanceResponse(
            balance=balance_message(put.stored, self._clock.now()), superseded=put.superseded
        )

    async def GetBalance(
        self, request: account_service_pb2.GetBalanceRequest, context: Context
    ) -> account_service_pb2.GetBalanceResponse:
        """One balance."""
        customer_id, balance_id = _read_key(Violations(), request)
        async with self._database.transaction() as connection:
            await balances.read_one_snapshot(connection)
            stored = await balances.get(connection, current_organization().organization_id, customer_id, balance_id)
        if stored is None:
            raise balance_not_found(customer_id, balance_id)
        return account_service_pb2.GetBalanceResponse(balance=balance_message(stored, self._clock.now()))

    async def ListBalances(
        self, request: account_service_pb2.ListBalancesRequest, context: Context
    ) -> account_service_pb2.ListBalancesResponse:
        """A page of balances, by customer and id."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        kinds = read_kinds(violations, "kinds", request.kinds)
        filters = customer_id, str(request.include_voided), *kinds
        page = read_page(violations, request.page_size, request.page_token, "ListBalances", filters, BY_TWO_IDS)
        violations.raise_if_any()
        wanted = BalanceFilter(customer_id or None, kinds, request.include_voided)
        async with self._database.transaction() as connection:
            await balances.read_one_snapshot(connection)
            organization_id = current_organization().organization_id
            rows = await balances.list_page(
                connection, organization_id, wanted, after=after_two_ids(page), limit=page.limit
            )
            total_size = None
            if request.include_total_size:
                total_size = await balances.count(connection, organization_id, wanted)
        now = self._clock.now()
        answer = account_service_pb2.ListBalancesResponse(total_size=total_size)
        page = await page.cut_into(answer.balances, (balance_message(row, now) for row in page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.fact.customer_id, row.fact.balance_id))
        return answer

    async def AdjustBalance(
        self, request: account_service_pb2.AdjustBalanceRequest, context: Context
    ) -> account_service_pb2.AdjustBalanceResponse:
        """Adds an amount to a segment, or subtracts it; once for each adjustment id."""
        violations = Violations()
        adjustment_id = violations.identifier("adjustment_id", request.adjustment_id)
        amount = violations.decimal("amount", request.amount)
        if request.amount and not amount and not any(item.path == "amount" for item in violations.found):
            violations.add("amount", "it is 0: an adjustment adds or subtracts an amount")
        if request.segment_number < 0:
            violations.add("segment_number", f"it is {request.segment_number}; segments are numbered from 1")
        custom_fields = read_custom_fields(violations, "custom_fields", request.custom_fields)
        customer_id, balance_id = _read_key(violations, request)
        segment_number = request.segment_number or None
        adjustment = Adjustment(customer_id, balance_id, adjustment_id, amount, segment_number, custom_fields)
        organization = current_organization()

        async def change(connection: Connection) -> tuple[BalanceChange, ChangedFacts]:
            done = await adjust(connection, organization.organization_id, adjustment, self._clock.now())
            await self._record(connection, done.changed, done.previous, done.balance)
            return done, _touched(done.changed, done.previous, done.balance)

        async with transaction_of(self._database, request.validate_only) as connection:
            done = await self._changes.apply(connection, organization, customer_id, change)
        return account_service_pb2.AdjustBalanceResponse(
            balance=balance_message(done.balance, self._clock.now()),
            segment_number=done.segment_number,
            replayed=not done.changed,
        )

    async def DecrementBalances(
        self, request: account_service_pb2.DecrementBalancesRequest, context: Context
    ) -> account_service_pb2.DecrementBalancesResponse:
        """Takes an amount from several balances; once for each adjustment id."""
        wanted = read_decrement(Violations(), request)
        organization = current_organization()

        async def change(connection: Connection) -> tuple[Decremented, ChangedFacts]:
            done = await decrement(connection, organization.organization_id, wanted, self._clock.now())
            await self._record_decrement(connection, wanted.customer_id, done)
            return done, ChangedFacts(balances=tuple(holding_of(version) for version in done.versions))

        async with transaction_of(self._database, request.validate_only) as connection:
            done = await self._changes.apply(connection, organization, wanted.customer_id, change)
        entries, _ = fitting(map(entry_message, done.entries), DEFAULT_ROOM)
        return account_service_pb2.DecrementBalancesResponse(
            entries=entries,
            remaining=format_decimal(done.remaining),
            overage=format_decimal(done.overage),
            omitted_entry_count=len(done.entries) - len(entries),
            replayed=not done.changed,
        )

    async def VoidBalance(
        self, request: account_service_pb2.VoidBalanceRequest, context: Context
    ) -> account_service_pb2.VoidBalanceResponse:
        """Voids a balance for ever."""
        customer_id, balance_id = _read_key(Violations(), request)
        organization = current_organization()

        async def change(connection: Connection) -> tuple[BalanceChange, ChangedFacts]:
            done = await balance_changes.void(
                connection, organization.organization_id, customer_id, balance_id, self._clock.now()
            )
            await self._record(connection, done.changed, done.previous, done.balance)
            return done, _touched(done.changed, done.previous, done.balance)

        async with transaction_of(self._database, request.validate_only) as connection:
            done = await self._changes.apply(connection, organization, customer_id, change)
        return account_service_pb2.VoidBalanceResponse(balance=balance_message(done.balance, self._clock.now()))

    async def ListBalanceEntries(
        self, request: account_service_pb2.ListBalanceEntriesRequest, context: Context
    ) -> account_service_pb2.ListBalanceEntriesResponse:
        """A page of the ledger of a customer's balances."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        balance_id = violations.identifier("balance_id", request.balance_id, required=False)
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListBalanceEntries",
            (customer_id, balance_id),
            (str, int),
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await balance_entries.list_page(
                connection,
                organization_id,
                customer_id,
                balance_id=balance_id or None,
                after=None if page.after is None else (str(page.after[0]), int(str(page.after[1]))),
                limit=page.limit,
            )
            total_size = None
            if request.include_total_size:
                total_size = await balance_entries.count(
                    connection, organization_id, customer_id, balance_id=balance_id or None
                )
        answer = account_service_pb2.ListBalanceEntriesResponse(total_size=total_size)
        page = await page.cut_into(answer.entries, map(entry_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.change.balance_id, row.entry_number))
        return answer

    async def ListOverages(
        self, request: account_service_pb2.ListOveragesRequest, context: Context
    ) -> account_service_pb2.ListOveragesResponse:
        """A page of the usage of a customer that no balance covered."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        page = read_page(violations, request.page_size, request.page_token, "ListOverages", (customer_id,), (str,))
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await overages.list_page(
                await driver(connection),
                organization_id,
                customer_id,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
            total_size = None
            if request.include_total_size:
                total_size = await overages.count(connection, organization_id, customer_id)
        answer = account_service_pb2.ListOveragesResponse(total_size=total_size)
        page = await page.cut_into(answer.overages, (overage_message(customer_id, row) for row in page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.unit.key,))
        return answer

    async def _record(
        self, connection: Connection, is_changed: bool, previous: StoredBalance | None, balance: StoredBalance
    ) -> None:
        """Records a changed balance in the audit log."""
        if is_changed:
            now = self._clock.now()
            before = None if previous is None else balance_message(previous, now)
            await record(connection, now, changed(before, balance_message(balance, now)))

    async def _record_decrement(self, connection: Connection, customer_id: str, done: Decremented) -> None:
        """Records the balances that a decrement changed; without any, that all of it became an overage."""
        if not done.changed:
            return
        now, half = self._clock.now(), len(done.versions) // 2
        changes = [
            changed(balance_message(before, now), balance_message(after, now))
            for before, after in zip(done.versions[:half], done.versions[half:], strict=True)
        ]
        await record(connection, now, *(changes or [Changed(ResourceType.BALANCE, "", customer_id)]))


def _read_key(
    violations: Violations,
    request: account_service_pb2.GetBalanceRequest
    | account_service_pb2.AdjustBalanceRequest
    | account_service_pb2.VoidBalanceRequest,
) -> tuple[str, str]:
    """The customer and the balance of a request. Raises InvalidArgument with all violations of the request."""
    key = (
        violations.identifier("customer_id", request.customer_id),
        violations.identifier("balance_id", request.balance_id),
    )
    violations.raise_if_any()
    return key


def _touched(changed: bool, previous: StoredBalance | None, balance: StoredBalance) -> ChangedFacts:
    if not changed:
        return ChangedFacts()
    versions = (balance,) if previous is None else (previous, balance)
    return ChangedFacts(balances=tuple(holding_of(version) for version in versions))
