"""The handlers of AccountService: customers, subscriptions and metrics."""

from typing import Any

import grpc

from evaluator.aggregation import Aggregation
from evaluator.periods import DEFAULT_CYCLE
from generated.tidemark.v1 import account_service_pb2, account_service_pb2_grpc, error_reason_pb2
from runtime.clock import Clock
from server.errors import FailedPrecondition, NotFound
from server.identity import current_organization
from server.mapping.accounts import (
    aggregation_name,
    customer_message,
    is_superseded,
    metric_message,
    read_aggregation,
    read_as_of_time,
    read_cycle,
    subscription_message,
)
from server.paging import read_page
from server.validation import Violations
from store import accounts, metrics
from store.accounts import DEFAULT_CURRENCY
from store.database import Database

Context = grpc.aio.ServicerContext[Any, Any]


class AccountService(account_service_pb2_grpc.AccountServiceServicer):
    """The handlers of tidemark.v1.AccountService."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def PutCustomer(
        self, request: account_service_pb2.PutCustomerRequest, context: Context
    ) -> account_service_pb2.PutCustomerResponse:
        """Creates or replaces a customer, unless a newer fact about it is known."""
        now = self._clock.now()
        violations = Violations()
        sent = request.customer
        customer_id = violations.identifier("customer.customer_id", sent.customer_id)
        display_name = violations.text("customer.display_name", sent.display_name)
        plan_id = violations.identifier("customer.plan_id", sent.plan_id, required=False) or None
        currency = violations.currency("customer.currency", sent.currency, default=DEFAULT_CURRENCY)
        cycle = read_cycle(violations, "customer", sent) or DEFAULT_CYCLE
        as_of_time = read_as_of_time(violations, "customer", sent, now)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            stored = await accounts.put_customer(
                connection,
                current_organization().organization_id,
                customer_id,
                display_name=display_name,
                plan_id=plan_id,
                currency=currency,
                cycle=cycle,
                as_of_time=as_of_time,
                now=now,
            )
        return account_service_pb2.PutCustomerResponse(
            customer=customer_message(stored, now), superseded=is_superseded(stored, as_of_time)
        )

    async def GetCustomer(
        self, request: account_service_pb2.GetCustomerRequest, context: Context
    ) -> account_service_pb2.GetCustomerResponse:
        """One customer."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            stored = await accounts.get_customer(connection, current_organization().organization_id, customer_id)
        if stored is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_CUSTOMER_NOT_FOUND,
                f"there is no customer {customer_id!r}: nobody put it and no usage named it",
                metadata={"customer_id": customer_id},
            )
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
            rows = await accounts.list_customers(
                connection,
                current_organization().organization_id,
                plan_id=plan_id or None,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
        now = self._clock.now()
        shown = page.shown(rows)
        return account_service_pb2.ListCustomersResponse(
            customers=[customer_message(row, now) for row in shown],
            next_page_token=page.next_token(rows, lambda row: (row.customer_id,)),
        )

    async def PutSubscription(
        self, request: account_service_pb2.PutSubscriptionRequest, context: Context
    ) -> account_service_pb2.PutSubscriptionResponse:
        """Creates or replaces a subscription, unless a newer fact about it is known."""
        now = self._clock.now()
        violations = Violations()
        sent = request.subscription
        customer_id = violations.identifier("subscription.customer_id", sent.customer_id)
        subscription_id = violations.identifier("subscription.subscription_id", sent.subscription_id)
        plan_id = violations.identifier("subscription.plan_id", sent.plan_id, required=False) or None
        currency = violations.currency("subscription.currency", sent.currency, default="") or None
        cycle = read_cycle(violations, "subscription", sent)
        start_time = end_time = None
        if sent.HasField("start_time"):
            start_time = violations.time("subscription.start_time", sent.start_time)
        if sent.HasField("end_time"):
            end_time = violations.time("subscription.end_time", sent.end_time)
        if start_time is not None and end_time is not None and end_time <= start_time:
            violations.add("subscription.end_time", "it is not after start_time")
        as_of_time = read_as_of_time(violations, "subscription", sent, now)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            stored = await accounts.put_subscription(
                connection,
                current_organization().organization_id,
                customer_id,
                subscription_id,
                plan_id=plan_id,
                currency=currency,
                cycle=cycle,
                start_time=start_time,
                end_time=end_time,
                as_of_time=as_of_time,
                now=now,
            )
        return account_service_pb2.PutSubscriptionResponse(
            subscription=subscription_message(stored, now),
            superseded=is_superseded(stored, as_of_time),
        )

    async def GetSubscription(
        self, request: account_service_pb2.GetSubscriptionRequest, context: Context
    ) -> account_service_pb2.GetSubscriptionResponse:
        """One subscription."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        subscription_id = violations.identifier("subscription_id", request.subscription_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            stored = await accounts.get_subscription(
                connection, current_organization().organization_id, customer_id, subscription_id
            )
        if stored is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_SUBSCRIPTION_NOT_FOUND,
                f"the customer {customer_id!r} has no subscription {subscription_id!r}:"
                " nobody put it and no usage named it",
                metadata={"customer_id": customer_id, "subscription_id": subscription_id},
            )
        return account_service_pb2.GetSubscriptionResponse(
            subscription=subscription_message(stored, self._clock.now())
        )

    async def ListSubscriptions(
        self, request: account_service_pb2.ListSubscriptionsRequest, context: Context
    ) -> account_service_pb2.ListSubscriptionsResponse:
        """A page of subscriptions, by customer and id."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        plan_id = violations.identifier("plan_id", request.plan_id, required=False)
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListSubscriptions",
            (customer_id, plan_id),
            (str, str),
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await accounts.list_subscriptions(
                connection,
                current_organization().organization_id,
                customer_id=customer_id or None,
                plan_id=plan_id or None,
                after=None if page.after is None else (str(page.after[0]), str(page.after[1])),
                limit=page.limit,
            )
        now = self._clock.now()
        shown = page.shown(rows)
        return account_service_pb2.ListSubscriptionsResponse(
            subscriptions=[subscription_message(row, now) for row in shown],
            next_page_token=page.next_token(rows, lambda row: (row.customer_id, row.subscription_id)),
        )

    async def PutMetric(
        self, request: account_service_pb2.PutMetricRequest, context: Context
    ) -> account_service_pb2.PutMetricResponse:
        """Creates or replaces a metric, unless a newer fact about it is known."""
        now = self._clock.now()
        violations = Violations()
        sent = request.metric
        metric_id = violations.identifier("metric.metric_id", sent.metric_id)
        display_name = violations.text("metric.display_name", sent.display_name)
        aggregation = read_aggregation(violations, "metric.aggregation", sent.aggregation)
        counts_unique = aggregation is Aggregation.UNIQUE_COUNT
        unique_property = violations.identifier(
            "metric.unique_property", sent.unique_property, required=counts_unique
        )
        if sent.unique_property and not counts_unique:
            violations.add("metric.unique_property", "only UNIQUE_COUNT has one")
        as_of_time = read_as_of_time(violations, "metric", sent, now)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            try:
                stored = await metrics.put_metric(
                    connection,
                    current_organization().organization_id,
                    metric_id,
                    display_name=display_name,
                    aggregation=aggregation,
                    unique_property=unique_property or None,
                    as_of_time=as_of_time,
                    now=now,
                )
            except metrics.MetricFixed as error:
                fixed = aggregation_name(error.stored.aggregation)
                unique = error.stored.unique_property
                raise FailedPrecondition(
                    error_reason_pb2.ERROR_REASON_METRIC_AGGREGATION_FIXED,
                    f"the metric {metric_id!r} exists with {fixed}{f' of {unique!r}' if unique else ''}, and what was"
                    " counted cannot be counted anew: put another metric",
                    metadata={"metric_id": metric_id, "aggregation": fixed},
                ) from error
        return account_service_pb2.PutMetricResponse(
            metric=metric_message(stored), superseded=is_superseded(stored, as_of_time)
        )

    async def GetMetric(
        self, request: account_service_pb2.GetMetricRequest, context: Context
    ) -> account_service_pb2.GetMetricResponse:
        """One metric."""
        violations = Violations()
        metric_id = violations.identifier("metric_id", request.metric_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            stored = await metrics.get_metric(connection, current_organization().organization_id, metric_id)
        if stored is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_METRIC_NOT_FOUND,
                f"there is no metric {metric_id!r}: nobody put it and no usage named it",
                metadata={"metric_id": metric_id},
            )
        return account_service_pb2.GetMetricResponse(metric=metric_message(stored))

    async def ListMetrics(
        self, request: account_service_pb2.ListMetricsRequest, context: Context
    ) -> account_service_pb2.ListMetricsResponse:
        """A page of metrics, by id."""
        violations = Violations()
        page = read_page(violations, request.page_size, request.page_token, "ListMetrics", (), (str,))
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await metrics.list_metrics(
                connection,
                current_organization().organization_id,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
        return account_service_pb2.ListMetricsResponse(
            metrics=[metric_message(row) for row in page.shown(rows)],
            next_page_token=page.next_token(rows, lambda row: (row.metric_id,)),
        )
