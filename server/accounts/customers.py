"""AccountService: customers."""

from datetime import datetime

from engine.facts.changes import FactChanges
from evaluator.definitions import DEFAULT_CURRENCY
from evaluator.periods import DEFAULT_CYCLE
from generated.tidemark.v1 import (
    account_service_pb2,
    customer_pb2,
)
from runtime.clock import Clock
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import read_page
from server.calls.shared_errors import customer_not_found
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping.accounts import (
    customer_message,
    read_as_of_time,
    read_cycle,
    read_plan_times,
)
from server.mapping.custom_fields import read_custom_fields
from store.accounts import customers
from store.accounts.customers import CustomerFact
from store.postgres.database import Database


class CustomerHandlers:
    """Serves the RPCs for customers."""

    def __init__(self, database: Database, clock: Clock, changes: FactChanges) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def PutCustomer(
        self, request: account_service_pb2.PutCustomerRequest, context: Context
    ) -> account_service_pb2.PutCustomerResponse:
        """Creates or replaces a customer, unless a newer fact about it is stored."""
        now = self._clock.now()
        fact = _read_customer(request.customer, now)
        organization = current_organization()
        async with transaction_of(self._database, request.validate_only) as connection:
            put = await customers.put(connection, organization.organization_id, fact, now)
            if put.epoch is not None:
                await self._changes.customer_changing(connection, organization, put.epoch, fact.customer_id)
        if put.changed and not request.validate_only:
            await self._changes.customer_changed(organization, fact.customer_id)
        return account_service_pb2.PutCustomerResponse(
            customer=customer_message(put.stored, now), superseded=put.superseded
        )

    async def GetCustomer(
        self, request: account_service_pb2.GetCustomerRequest, context: Context
    ) -> account_service_pb2.GetCustomerResponse:
        """One customer."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            stored = await customers.get(connection, current_organization().organization_id, customer_id)
        if stored is None:
            raise customer_not_found(customer_id)
        return account_service_pb2.GetCustomerResponse(customer=customer_message(stored, self._clock.now()))

    async def ListCustomers(
        self, request: account_service_pb2.ListCustomersRequest, context: Context
    ) -> account_service_pb2.ListCustomersResponse:
        """A page of customers, by id."""
        violations = Violations()
        plan_id = violations.identifier("plan_id", request.plan_id, required=False)
        page = read_page(violations, request.page_size, request.page_token, "ListCustomers", (plan_id,), (str,))
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await customers.list_page(
                connection,
                organization_id,
                plan_id=plan_id or None,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
            total_size = 0
            if request.include_total_size:
                total_size = await customers.count(connection, organization_id, plan_id=plan_id or None)
        now = self._clock.now()
        shown = [customer_message(row, now) for row in page.shown(rows)]
        page = page.cut(shown)
        return account_service_pb2.ListCustomersResponse(
            customers=page.shown(shown),
            next_page_token=page.next_token(rows, lambda row: (row.customer_id,)),
            total_size=total_size,
        )


def _read_customer(sent: customer_pb2.Customer, now: datetime) -> CustomerFact:
    """The customer that was sent. Raises InvalidArgument."""
    violations = Violations()
    customer_id = violations.identifier("customer.customer_id", sent.customer_id)
    display_name = violations.text("customer.display_name", sent.display_name)
    plan_id = violations.identifier("customer.plan_id", sent.plan_id, required=False) or None
    plan_start_time, plan_end_time = read_plan_times(violations, "customer", sent)
    currency = violations.currency("customer.currency", sent.currency, default=DEFAULT_CURRENCY)
    cycle = read_cycle(violations, "customer", sent) or DEFAULT_CYCLE
    custom_fields = read_custom_fields(violations, "customer.custom_fields", sent.custom_fields)
    as_of_time = read_as_of_time(violations, "customer", sent, now)
    violations.raise_if_any()
    return CustomerFact(
        customer_id=customer_id,
        display_name=display_name,
        plan_id=plan_id,
        plan_start_time=plan_start_time,
        plan_end_time=plan_end_time,
        currency=currency,
        cycle=cycle,
        custom_fields=custom_fields,
        as_of_time=as_of_time,
    )
