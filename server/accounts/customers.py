"""AccountService: customers."""

import functools
from datetime import datetime
from typing import NamedTuple

from engine.puts.puts import Puts
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
from server.calls.validation import MAX_ID_LENGTH, Violations
from server.mapping.accounts import (
    customer_message,
    read_aliases,
    read_as_of_time,
    read_cycle,
    read_plan_times,
)
from server.mapping.audited_resources import Describing
from server.mapping.custom_fields import read_custom_fields
from store.accounts import customer_names, customers
from store.accounts.customer_names import NameKind
from store.accounts.customers import CustomerFact, CustomerFilter, StoredCustomer
from store.postgres.database import Database


class CustomerHandlers:
    """Serves the RPCs for customers."""

    def __init__(self, database: Database, clock: Clock, puts: Puts[CustomerFact, StoredCustomer]) -> None:
        self._database = database
        self._clock = clock
        self._puts = puts

    async def PutCustomer(
        self, request: account_service_pb2.PutCustomerRequest, context: Context
    ) -> account_service_pb2.PutCustomerResponse:
        """Creates or replaces a customer, unless a newer fact about it is stored."""
        now = self._clock.now()
        fact = _read_customer(request.customer, now)
        describe = Describing(functools.partial(customer_message, now=now))
        put = await self._puts.put(current_organization(), fact, describe, validate_only=request.validate_only)
        return account_service_pb2.PutCustomerResponse(
            customer=describe.message(put.stored), superseded=put.superseded
        )

    async def GetCustomer(
        self, request: account_service_pb2.GetCustomerRequest, context: Context
    ) -> account_service_pb2.GetCustomerResponse:
        """One customer."""
        named = _read_named(request)
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            customer_id: str | None = named.name
            if named.kind is not None:
                customer_id = await customer_names.customer_of(connection, organization_id, named.kind, named.name)
            stored = None if customer_id is None else await customers.get(connection, organization_id, customer_id)
        if stored is None:
            raise customer_not_found(named.name, named.field)
        return account_service_pb2.GetCustomerResponse(customer=customer_message(stored, self._clock.now()))

    async def ListCustomers(
        self, request: account_service_pb2.ListCustomersRequest, context: Context
    ) -> account_service_pb2.ListCustomersResponse:
        """A page of customers, by id."""
        violations = Violations()
        plan_id = violations.identifier("plan_id", request.plan_id, required=False)
        external_id = violations.identifier("external_id", request.external_id, required=False)
        alias = violations.identifier("alias", request.alias, required=False)
        parent = violations.identifier("parent_customer_id", request.parent_customer_id, required=False)
        prefix = violations.text("customer_id_prefix", request.customer_id_prefix, max_length=MAX_ID_LENGTH)
        filters = plan_id, external_id, alias, parent, prefix
        page = read_page(violations, request.page_size, request.page_token, "ListCustomers", filters, (str,))
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            wanted = CustomerFilter(plan_id or None, external_id or None, alias or None, parent or None, prefix)
            rows = await customers.list_page(
                connection,
                organization_id,
                wanted,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
            total_size = None
            if request.include_total_size:
                total_size = await customers.count(connection, organization_id, wanted)
        now = self._clock.now()
        answer = account_service_pb2.ListCustomersResponse(total_size=total_size)
        page = await page.cut_into(answer.customers, (customer_message(row, now) for row in page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.customer_id,))
        return answer


class _Named(NamedTuple):
    """How a request names a customer: by the name in a field. kind: None for the customer_id."""

    field: str
    name: str
    kind: NameKind | None


def _read_named(request: account_service_pb2.GetCustomerRequest) -> _Named:
    """How the request names the customer. Raises InvalidArgument."""
    violations = Violations()
    ways = (
        _Named("customer_id", request.customer_id, None),
        _Named("external_id", request.external_id, NameKind.EXTERNAL_ID),
        _Named("alias", request.alias, NameKind.ALIAS),
    )
    given = [way for way in ways if way.name]
    if not given:
        violations.add("customer_id", "it is required, or external_id or alias in its place")
    for way in given:
        violations.identifier(way.field, way.name)
    for way in given[1:]:
        violations.add(way.field, f"the request names the customer by {given[0].field} already")
    violations.raise_if_any()
    return given[0]


def _read_customer(sent: customer_pb2.Customer, now: datetime) -> CustomerFact:
    """The customer that was sent. Raises InvalidArgument."""
    violations = Violations()
    customer_id = violations.identifier("customer.customer_id", sent.customer_id)
    display_name = violations.text("customer.display_name", sent.display_name)
    external_id = violations.identifier("customer.external_id", sent.external_id, required=False) or None
    aliases = read_aliases(violations, "customer.aliases", sent.aliases)
    plan_id = violations.identifier("customer.plan_id", sent.plan_id, required=False) or None
    plan_start_time, plan_end_time = read_plan_times(violations, "customer", sent)
    currency = violations.currency("customer.currency", sent.currency, default=DEFAULT_CURRENCY)
    cycle = read_cycle(violations, "customer", sent) or DEFAULT_CYCLE
    custom_fields = read_custom_fields(violations, "customer.custom_fields", sent.custom_fields)
    parent_path = "customer.parent_customer_id"
    parent_customer_id = violations.identifier(parent_path, sent.parent_customer_id, required=False) or None
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
        external_id=external_id,
        aliases=aliases,
        parent_customer_id=parent_customer_id,
    )
