"""AccountService over a real channel: facts are stored, older puts are superseded, and all violations are named."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import (
    account_service_pb2_grpc,
    billing_period_pb2,
    customer_pb2,
    metric_pb2,
    subscription_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_datetime, to_timestamp
from store.identity import keys
from store.postgres.database import Database
from tests.support.server.running import Running, reason_of, violations_of

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
HOUR = timedelta(hours=1)


@pytest.fixture
def accounts(api: Running) -> account_service_pb2_grpc.AccountServiceStub:
    """A stub of the service."""
    return account_service_pb2_grpc.AccountServiceStub(api.channel)


Stub = account_service_pb2_grpc.AccountServiceStub


def at(text: str) -> Timestamp:
    return to_timestamp(datetime.fromisoformat(text).astimezone(UTC))


def cycle(
    anchor: str, cadence: billing_period_pb2.Cadence.ValueType, count: int = 1, zone: str = ""
) -> billing_period_pb2.BillingCycle:
    return billing_period_pb2.BillingCycle(
        anchor_time=at(anchor), cadence=cadence, interval_count=count, time_zone=zone
    )


def period_of(message: customer_pb2.Customer | subscription_pb2.Subscription) -> tuple[str, str]:
    period = message.current_billing_period
    return to_datetime(period.start_time).isoformat(), to_datetime(period.end_time).isoformat()


async def test_a_customer_gets_defaults_and_shows_its_billing_period(accounts: Stub) -> None:
    put = await accounts.PutCustomer(messages.PutCustomerRequest(customer=customer_pb2.Customer(customer_id="acme")))
    assert not put.superseded
    assert put.customer.currency == "USD"
    assert put.customer.billing_cycle == cycle(
        "1970-01-01T00:00:00+00:00", billing_period_pb2.CADENCE_MONTH, zone="UTC"
    )
    assert period_of(put.customer) == ("2026-03-01T00:00:00+00:00", "2026-04-01T00:00:00+00:00")
    assert to_datetime(put.customer.as_of_time) == to_datetime(put.customer.create_time) == NOW
    got = await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="acme"))
    assert got.customer == put.customer


async def test_every_field_of_a_customer_comes_back(accounts: Stub) -> None:
    sent = customer_pb2.Customer(
        customer_id="acme",
        display_name="Acme – Ünited",
        plan_id="pro",
        currency="credits",
        billing_cycle=cycle("2026-01-31T00:00:00+01:00", billing_period_pb2.CADENCE_QUARTER, 2, "Europe/Berlin"),
        as_of_time=at("2026-03-01T00:00:00+00:00"),
    )
    customer = (await accounts.PutCustomer(messages.PutCustomerRequest(customer=sent))).customer
    assert period_of(customer) == ("2026-01-30T23:00:00+00:00", "2026-07-30T22:00:00+00:00")
    for field in ("current_billing_period", "create_time", "update_time"):
        customer.ClearField(field)
    assert customer == sent


async def test_output_only_fields_of_a_put_are_ignored(accounts: Stub) -> None:
    sent = customer_pb2.Customer(
        customer_id="acme", create_time=Timestamp(seconds=2**62), update_time=Timestamp(nanos=-1)
    )
    customer = (await accounts.PutCustomer(messages.PutCustomerRequest(customer=sent))).customer
    assert to_datetime(customer.create_time) == to_datetime(customer.update_time) == NOW


async def test_an_older_put_is_superseded_and_returns_the_newer_fact(accounts: Stub) -> None:
    newer = customer_pb2.Customer(customer_id="acme", plan_id="pro", as_of_time=to_timestamp(NOW))
    older = customer_pb2.Customer(customer_id="acme", plan_id="free", as_of_time=to_timestamp(NOW - HOUR))
    first = await accounts.PutCustomer(messages.PutCustomerRequest(customer=newer))
    second = await accounts.PutCustomer(messages.PutCustomerRequest(customer=older))
    assert (second.customer, second.superseded) == (first.customer, True)
    again = await accounts.PutCustomer(messages.PutCustomerRequest(customer=newer))
    assert (again.customer, again.superseded) == (first.customer, False)


async def test_a_subscription_has_its_customers_cycle_until_it_has_its_own(accounts: Stub) -> None:
    yearly = cycle("2025-06-01T00:00:00+00:00", billing_period_pb2.CADENCE_YEAR)
    customer = customer_pb2.Customer(customer_id="acme", billing_cycle=yearly)
    await accounts.PutCustomer(messages.PutCustomerRequest(customer=customer))
    sent = subscription_pb2.Subscription(customer_id="acme", subscription_id="s1", as_of_time=to_timestamp(NOW))
    inherits = (await accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=sent))).subscription
    assert not inherits.HasField("billing_cycle")
    assert not inherits.HasField("start_time")
    assert inherits.currency == ""
    assert period_of(inherits) == ("2025-06-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00")
    sent.billing_cycle.CopyFrom(cycle("2026-03-14T00:00:00+00:00", billing_period_pb2.CADENCE_WEEK))
    sent.start_time.FromJsonString("1970-01-01T00:00:00Z")
    sent.end_time.CopyFrom(to_timestamp(NOW))
    sent.plan_id = "pro"
    sent.currency = "EUR"
    own = (await accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=sent))).subscription
    assert period_of(own) == ("2026-03-14T00:00:00+00:00", "2026-03-21T00:00:00+00:00")
    assert own.HasField("start_time")
    got = await accounts.GetSubscription(messages.GetSubscriptionRequest(customer_id="acme", subscription_id="s1"))
    assert got.subscription == own
    for field in ("current_billing_period", "create_time", "update_time"):
        own.ClearField(field)
    sent.billing_cycle.time_zone = "UTC"
    assert own == sent


async def test_a_put_of_a_subscription_registers_an_unknown_customer(accounts: Stub) -> None:
    sent = subscription_pb2.Subscription(customer_id="new", subscription_id="s1")
    await accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=sent))
    customer = (await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="new"))).customer
    assert customer.currency == "USD"
    assert not customer.HasField("as_of_time")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (metric_pb2.AGGREGATION_UNSPECIFIED, metric_pb2.AGGREGATION_SUM),
        (metric_pb2.AGGREGATION_SUM, metric_pb2.AGGREGATION_SUM),
        (metric_pb2.AGGREGATION_COUNT, metric_pb2.AGGREGATION_COUNT),
        (metric_pb2.AGGREGATION_MAX, metric_pb2.AGGREGATION_MAX),
        (metric_pb2.AGGREGATION_LATEST, metric_pb2.AGGREGATION_LATEST),
        (metric_pb2.AGGREGATION_UNIQUE_COUNT, metric_pb2.AGGREGATION_UNIQUE_COUNT),
    ],
)
async def test_a_metric_of_every_aggregation_comes_back(
    accounts: Stub, sent: metric_pb2.Aggregation.ValueType, kept: metric_pb2.Aggregation.ValueType
) -> None:
    unique_property = "seat" if sent == metric_pb2.AGGREGATION_UNIQUE_COUNT else ""
    metric = metric_pb2.Metric(metric_id="m", aggregation=sent, unique_property=unique_property)
    put = await accounts.PutMetric(messages.PutMetricRequest(metric=metric))
    assert (put.metric.aggregation, put.metric.unique_property) == (kept, unique_property)
    assert (await accounts.GetMetric(messages.GetMetricRequest(metric_id="m"))).metric == put.metric


async def test_a_put_that_changes_the_aggregation_of_a_metric_is_refused(accounts: Stub) -> None:
    await accounts.PutMetric(messages.PutMetricRequest(metric=metric_pb2.Metric(metric_id="m")))
    other = metric_pb2.Metric(metric_id="m", aggregation=metric_pb2.AGGREGATION_MAX)
    with pytest.raises(grpc.aio.AioRpcError, match="AGGREGATION_SUM") as raised:
        await accounts.PutMetric(messages.PutMetricRequest(metric=other))
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(raised.value) == "ERROR_REASON_METRIC_AGGREGATION_FIXED"


async def test_an_unknown_fact_is_not_found(accounts: Stub) -> None:
    for call, reason in (
        (accounts.GetCustomer(messages.GetCustomerRequest(customer_id="x")), "CUSTOMER"),
        (
            accounts.GetSubscription(messages.GetSubscriptionRequest(customer_id="x", subscription_id="y")),
            "SUBSCRIPTION",
        ),
        (accounts.GetMetric(messages.GetMetricRequest(metric_id="x")), "METRIC"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason_of(raised.value) == f"ERROR_REASON_{reason}_NOT_FOUND"


async def assert_violations(call: Any, *paths: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == "ERROR_REASON_INVALID_FIELD"
    assert violations_of(raised.value) == list(paths)


async def test_all_violations_of_a_customer_are_named(accounts: Stub) -> None:
    bad = customer_pb2.Customer(
        customer_id=" x",
        display_name="x" * 257,
        plan_id="a\nb",
        currency="usd",
        billing_cycle=billing_period_pb2.BillingCycle(
            anchor_time=Timestamp(seconds=-(2**40)), interval_count=-1, time_zone="Mars/Olympus"
        ),
        as_of_time=to_timestamp(NOW + HOUR),
    )
    await assert_violations(
        accounts.PutCustomer(messages.PutCustomerRequest(customer=bad)),
        "customer.customer_id",
        "customer.display_name",
        "customer.plan_id",
        "customer.currency",
        "customer.billing_cycle.cadence",
        "customer.billing_cycle.anchor_time",
        "customer.billing_cycle.interval_count",
        "customer.billing_cycle.time_zone",
        "customer.as_of_time",
    )
    await assert_violations(accounts.PutCustomer(messages.PutCustomerRequest()), "customer.customer_id")


@pytest.mark.parametrize(
    ("bad", "paths"),
    [
        (billing_period_pb2.BillingCycle(), ["cadence", "anchor_time"]),
        (billing_period_pb2.BillingCycle(cadence=99), ["cadence", "anchor_time"]),  # type: ignore[arg-type]  # unknown
        (cycle("1899-12-31T00:00:00+00:00", billing_period_pb2.CADENCE_DAY), ["anchor_time"]),
        (cycle("2026-01-01T00:00:00+00:00", billing_period_pb2.CADENCE_DAY, 1001), ["interval_count"]),
    ],
)
async def test_an_invalid_billing_cycle_is_named(
    accounts: Stub, bad: billing_period_pb2.BillingCycle, paths: list[str]
) -> None:
    customer = customer_pb2.Customer(customer_id="acme", billing_cycle=bad)
    await assert_violations(
        accounts.PutCustomer(messages.PutCustomerRequest(customer=customer)),
        *(f"customer.billing_cycle.{path}" for path in paths),
    )


async def test_all_violations_of_a_subscription_are_named(accounts: Stub) -> None:
    bad = subscription_pb2.Subscription(
        currency="€", start_time=to_timestamp(NOW), end_time=to_timestamp(NOW), as_of_time=Timestamp(nanos=-1)
    )
    await assert_violations(
        accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=bad)),
        "subscription.customer_id",
        "subscription.subscription_id",
        "subscription.currency",
        "subscription.end_time",
        "subscription.as_of_time",
    )


async def test_all_violations_of_a_metric_are_named(accounts: Stub) -> None:
    unique = metric_pb2.Metric(aggregation=metric_pb2.AGGREGATION_UNIQUE_COUNT)
    await assert_violations(
        accounts.PutMetric(messages.PutMetricRequest(metric=unique)), "metric.metric_id", "metric.unique_property"
    )
    summed = metric_pb2.Metric(metric_id="m", unique_property="seat")
    await assert_violations(accounts.PutMetric(messages.PutMetricRequest(metric=summed)), "metric.unique_property")
    unknown = metric_pb2.Metric(metric_id="m", aggregation=99)  # type: ignore[arg-type]  # an unknown number
    await assert_violations(accounts.PutMetric(messages.PutMetricRequest(metric=unknown)), "metric.aggregation")


async def test_invalid_ids_of_reads_and_lists_are_named(accounts: Stub) -> None:
    await assert_violations(accounts.GetCustomer(messages.GetCustomerRequest()), "customer_id")
    await assert_violations(
        accounts.GetSubscription(messages.GetSubscriptionRequest(customer_id="a\0")), "customer_id", "subscription_id"
    )
    await assert_violations(accounts.GetMetric(messages.GetMetricRequest(metric_id="x" * 129)), "metric_id")
    await assert_violations(
        accounts.ListCustomers(messages.ListCustomersRequest(plan_id="a\0", page_size=-1)), "plan_id", "page_size"
    )
    await assert_violations(
        accounts.ListSubscriptions(messages.ListSubscriptionsRequest(customer_id=" ", plan_id=" ", page_size=-1)),
        "customer_id",
        "plan_id",
        "page_size",
    )
    await assert_violations(accounts.ListMetrics(messages.ListMetricsRequest(page_size=-1)), "page_size")


async def test_lists_are_read_page_by_page(accounts: Stub) -> None:
    for number in range(5):
        customer_id, plan_id = f"c{number}", "pro" if number % 2 else "free"
        customer = customer_pb2.Customer(customer_id=customer_id, plan_id=plan_id)
        await accounts.PutCustomer(messages.PutCustomerRequest(customer=customer))
        subscription = subscription_pb2.Subscription(subscription_id="s", customer_id=customer_id, plan_id=plan_id)
        await accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=subscription))
        await accounts.PutMetric(messages.PutMetricRequest(metric=metric_pb2.Metric(metric_id=f"m{number}")))

    customers, subscriptions, metrics = [], [], []
    token = ""
    while True:
        page = await accounts.ListCustomers(messages.ListCustomersRequest(page_size=2, page_token=token))
        assert len(page.customers) <= 2
        customers += [customer.customer_id for customer in page.customers]
        if not (token := page.next_page_token):
            break
    while True:
        found = await accounts.ListSubscriptions(messages.ListSubscriptionsRequest(page_size=4, page_token=token))
        subscriptions += [subscription.customer_id for subscription in found.subscriptions]
        if not (token := found.next_page_token):
            break
    while True:
        answer = await accounts.ListMetrics(messages.ListMetricsRequest(page_size=5, page_token=token))
        metrics += [metric.metric_id for metric in answer.metrics]
        if not (token := answer.next_page_token):
            break
    assert customers == subscriptions == [f"c{number}" for number in range(5)]
    assert metrics == [f"m{number}" for number in range(5)]
    pro = await accounts.ListCustomers(messages.ListCustomersRequest(plan_id="pro"))
    assert [customer.customer_id for customer in pro.customers] == ["c1", "c3"]
    one = await accounts.ListSubscriptions(messages.ListSubscriptionsRequest(customer_id="c1", plan_id="pro"))
    assert [subscription.customer_id for subscription in one.subscriptions] == ["c1"]
    none = await accounts.ListSubscriptions(messages.ListSubscriptionsRequest(customer_id="c1", plan_id="free"))
    assert not none.subscriptions


async def test_a_page_token_is_refused_by_another_list(accounts: Stub) -> None:
    for number in range(3):
        customer = customer_pb2.Customer(customer_id=f"c{number}", plan_id="pro")
        await accounts.PutCustomer(messages.PutCustomerRequest(customer=customer))
    page = await accounts.ListCustomers(messages.ListCustomersRequest(page_size=1, plan_id="pro"))
    for call in (
        accounts.ListCustomers(messages.ListCustomersRequest(page_token=page.next_page_token)),
        accounts.ListMetrics(messages.ListMetricsRequest(page_token=page.next_page_token)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(raised.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_an_organization_sees_only_its_own_facts(
    accounts: Stub, database: Database, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        acme = await keys.create_key(connection, "acme", clock.now())
        other = await keys.create_key(connection, "other", clock.now())
    as_acme, as_other = ((("authorization", f"Bearer {created.key}"),) for created in (acme, other))
    customer = customer_pb2.Customer(customer_id="c", plan_id="of acme")
    await accounts.PutCustomer(messages.PutCustomerRequest(customer=customer), metadata=as_acme)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="c"), metadata=as_other)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await accounts.ListCustomers(messages.ListCustomersRequest(), metadata=as_other)).customers
    customer.plan_id = "of other"
    await accounts.PutCustomer(messages.PutCustomerRequest(customer=customer), metadata=as_other)
    got = await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="c"), metadata=as_acme)
    assert got.customer.plan_id == "of acme"
