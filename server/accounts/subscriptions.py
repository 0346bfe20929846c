"""AccountService: subscriptions."""

import functools
from datetime import datetime

from engine.facts.deletions import FactDeletions
from engine.puts.puts import Puts
from generated.tidemark.v1 import account_service_pb2, subscription_pb2
from runtime.clock import Clock
from server.accounts.errors import subscription_ambiguous, subscription_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TWO_IDS, after_two_ids, read_page
from server.calls.validation import Violations
from server.mapping.accounts import (
    read_as_of_time,
    read_cycle,
    read_plan_times,
    subscription_message,
)
from server.mapping.audited_resources import Describing, deletion
from server.mapping.custom_fields import read_custom_fields
from store.accounts import subscriptions
from store.accounts.deletions import FactKey, FactKind
from store.accounts.subscriptions import StoredSubscription, SubscriptionFact, SubscriptionFilter
from store.audit.entries import NewEntry
from store.postgres.database import Connection, Database

MAX_CUSTOMER_COUNT = 1000  # customers with a subscription of the same id that an error counts


class SubscriptionHandlers:
    """Serves the RPCs for subscriptions."""

    def __init__(self, database: Database, clock: Clock, puts: Puts[SubscriptionFact, StoredSubscription]) -> None:
        self._database = database
        self._clock = clock
        self._puts = puts
        self._deletions = FactDeletions(database, clock)

    async def PutSubscription(
        self, request: account_service_pb2.PutSubscriptionRequest, context: Context
    ) -> account_service_pb2.PutSubscriptionResponse:
        """Creates or replaces a subscription, unless a newer fact about it is stored."""
        now = self._clock.now()
        fact = _read_subscription(request.subscription, now)
        describe = Describing(functools.partial(subscription_message, now=now))
        put = await self._puts.put(current_organization(), fact, describe, validate_only=request.validate_only)
        return account_service_pb2.PutSubscriptionResponse(
            subscription=describe.message(put.stored), superseded=put.superseded
        )

    async def GetSubscription(
        self, request: account_service_pb2.GetSubscriptionRequest, context: Context
    ) -> account_service_pb2.GetSubscriptionResponse:
        """One subscription."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        subscription_id = violations.identifier("subscription_id", request.subscription_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            of_customer = customer_id or await _only_customer(connection, organization_id, subscription_id)
            stored = await subscriptions.get(connection, organization_id, of_customer, subscription_id)
        if stored is None:
            raise subscription_not_found(customer_id, subscription_id)
        return account_service_pb2.GetSubscriptionResponse(
            subscription=subscription_message(stored, self._clock.now())
        )

    async def DeleteSubscription(
        self, request: account_service_pb2.DeleteSubscriptionRequest, context: Context
    ) -> account_service_pb2.DeleteSubscriptionResponse:
        """Removes a subscription that nothing uses."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        subscription_id = violations.identifier("subscription_id", request.subscription_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            stored = await subscriptions.get(connection, organization_id, customer_id, subscription_id)
        if stored is None and not request.allow_missing:
            raise subscription_not_found(customer_id, subscription_id)
        key = FactKey(FactKind.SUBSCRIPTION, subscription_id, customer_id)
        if stored is not None and request.validate_only:
            await self._deletions.check(organization_id, key)
        elif stored is not None:

            async def entry_of(connection: Connection) -> NewEntry | None:
                found = await subscriptions.get(connection, organization_id, customer_id, subscription_id)
                return None if found is None else deletion(subscription_message(found, self._clock.now()))

            await self._deletions.delete(organization_id, key, entry_of)
        return account_service_pb2.DeleteSubscriptionResponse()

    async def ListSubscriptions(
        self, request: account_service_pb2.ListSubscriptionsRequest, context: Context
    ) -> account_service_pb2.ListSubscriptionsResponse:
        """A page of subscriptions, by customer and id."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        subscription_id = violations.identifier("subscription_id", request.subscription_id, required=False)
        plan_id = violations.identifier("plan_id", request.plan_id, required=False)
        filters = customer_id, subscription_id, plan_id
        page = read_page(violations, request.page_size, request.page_token, "ListSubscriptions", filters, BY_TWO_IDS)
        violations.raise_if_any()
        wanted = SubscriptionFilter(customer_id or None, plan_id or None, subscription_id or None)
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await subscriptions.list_page(
                connection, organization_id, wanted, after=after_two_ids(page), limit=page.limit
            )
            total_size = None
            if request.include_total_size:
                total_size = await subscriptions.count(connection, organization_id, wanted)
        now = self._clock.now()
        answer = account_service_pb2.ListSubscriptionsResponse(total_size=total_size)
        page = await page.cut_into(answer.subscriptions, (subscription_message(row, now) for row in page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.customer_id, row.subscription_id))
        return answer


async def _only_customer(connection: Connection, organization_id: int, subscription_id: str) -> str:
    """The customer that has the subscription, if no other one has a subscription of that id.

    Raises NotFound and FailedPrecondition.
    """
    found = await subscriptions.customers_with(connection, organization_id, subscription_id, limit=MAX_CUSTOMER_COUNT)
    if not found:
        raise subscription_not_found("", subscription_id)
    if len(found) > 1:
        raise subscription_ambiguous(subscription_id, len(found))
    return found[0]


def _read_subscription(sent: subscription_pb2.Subscription, now: datetime) -> SubscriptionFact:
    """The subscription that was sent. Raises InvalidArgument."""
    violations = Violations()
    customer_id = violations.identifier("subscription.customer_id", sent.customer_id)
    subscription_id = violations.identifier("subscription.subscription_id", sent.subscription_id)
    display_name = violations.text("subscription.display_name", sent.display_name)
    plan_id = violations.identifier("subscription.plan_id", sent.plan_id, required=False) or None
    plan_start_time, plan_end_time = read_plan_times(violations, "subscription", sent)
    currency = violations.currency("subscription.currency", sent.currency, default="") or None
    cycle = read_cycle(violations, "subscription", sent)
    start_time = end_time = None
    if sent.HasField("start_time"):
        start_time = violations.time("subscription.start_time", sent.start_time)
    if sent.HasField("end_time"):
        end_time = violations.time("subscription.end_time", sent.end_time)
    if start_time is not None and end_time is not None and end_time <= start_time:
        violations.add("subscription.end_time", "it is not after start_time")
    custom_fields = read_custom_fields(violations, "subscription.custom_fields", sent.custom_fields)
    as_of_time = read_as_of_time(violations, "subscription", sent, now)
    violations.raise_if_any()
    return SubscriptionFact(
        customer_id=customer_id,
        subscription_id=subscription_id,
        plan_id=plan_id,
        plan_start_time=plan_start_time,
        plan_end_time=plan_end_time,
        currency=currency,
        cycle=cycle,
        start_time=start_time,
        end_time=end_time,
        custom_fields=custom_fields,
        as_of_time=as_of_time,
        display_name=display_name,
    )
