"""AccountService: invoices."""

from engine.facts.changes import FactChanges
from evaluator.changed_facts import ChangedFacts
from generated.tidemark.v1 import account_service_pb2, error_reason_pb2
from runtime.clock import Clock
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.errors import NotFound
from server.calls.paging import BY_TWO_IDS, after_two_ids, read_page
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.audited_resources import changed
from server.mapping.invoices import invoice_message, read_invoice, read_statuses
from store.accounts import invoices
from store.accounts.invoice_readings import invoice_of
from store.accounts.invoices import InvoiceFilter, StoredInvoice
from store.accounts.puts import Put
from store.postgres.database import Connection, Database


class InvoiceHandlers:
    """Serves the RPCs for invoices."""

    def __init__(self, database: Database, clock: Clock, changes: FactChanges) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def PutInvoice(
        self, request: account_service_pb2.PutInvoiceRequest, context: Context
    ) -> account_service_pb2.PutInvoiceResponse:
        """Creates or replaces an invoice, unless a newer fact about it is stored."""
        now = self._clock.now()
        violations = Violations()
        fact = read_invoice(violations, "invoice", request.invoice, now)
        violations.raise_if_any()
        organization = current_organization()

        async def change(connection: Connection) -> tuple[Put[StoredInvoice], ChangedFacts]:
            put = await invoices.put(connection, organization.organization_id, fact, self._clock.now())
            if put.changed:
                before = None if put.previous is None else invoice_message(put.previous)
                await record(connection, now, changed(before, invoice_message(put.stored)))
            versions = (put.previous, put.stored) if put.changed else ()
            return put, ChangedFacts(invoices=tuple(invoice_of(one.fact) for one in versions if one is not None))

        async with transaction_of(self._database, request.validate_only) as connection:
            put = await self._changes.apply(connection, organization, fact.customer_id, change)
        return account_service_pb2.PutInvoiceResponse(invoice=invoice_message(put.stored), superseded=put.superseded)

    async def GetInvoice(
        self, request: account_service_pb2.GetInvoiceRequest, context: Context
    ) -> account_service_pb2.GetInvoiceResponse:
        """One invoice."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        invoice_id = violations.identifier("invoice_id", request.invoice_id)
        violations.raise_if_any()
        async with self._database.reading() as connection:
            stored = await invoices.get(connection, current_organization().organization_id, customer_id, invoice_id)
        if stored is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_INVOICE_NOT_FOUND,
                f"the customer {customer_id!r} has no invoice {invoice_id!r}: create it with PutInvoice",
                metadata={"customer_id": customer_id, "invoice_id": invoice_id},
            )
        return account_service_pb2.GetInvoiceResponse(invoice=invoice_message(stored))

    async def ListInvoices(
        self, request: account_service_pb2.ListInvoicesRequest, context: Context
    ) -> account_service_pb2.ListInvoicesResponse:
        """A page of invoices, by customer and id."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        invoice_type = violations.identifier("type", request.type, required=False)
        statuses = read_statuses(violations, "statuses", request.statuses)
        filters = customer_id, invoice_type, *statuses
        page = read_page(violations, request.page_size, request.page_token, "ListInvoices", filters, BY_TWO_IDS)
        violations.raise_if_any()
        wanted = InvoiceFilter(customer_id or None, invoice_type or None, statuses)
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await invoices.list_page(
                connection, organization_id, wanted, after=after_two_ids(page), limit=page.limit
            )
            total_size = None
            if request.include_total_size:
                total_size = await invoices.count(connection, organization_id, wanted)
        answer = account_service_pb2.ListInvoicesResponse(total_size=total_size)
        page = await page.cut_into(answer.invoices, map(invoice_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.fact.customer_id, row.fact.invoice_id))
        return answer
