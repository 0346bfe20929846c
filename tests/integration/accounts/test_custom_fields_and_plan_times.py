"""Custom fields of customers and subscriptions, and their time on a plan."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import (
    account_service_pb2_grpc,
    customer_pb2,
    subscription_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_datetime, to_timestamp
from store.identity import organizations
from store.postgres.database import Database
from tests.support.facts.refusals import assert_violations
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


Stub = account_service_pb2_grpc.AccountServiceStub

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
HOUR = timedelta(hours=1)
START, END = to_timestamp(NOW), to_timestamp(NOW + HOUR)


async def put_customer(accounts: Stub, **fields: Any) -> customer_pb2.Customer:
    sent = customer_pb2.Customer(customer_id="acme", **fields)
    answer = await accounts.PutCustomer(messages.PutCustomerRequest(customer=sent))
    return answer.customer


async def put_subscription(accounts: Stub, **fields: Any) -> subscription_pb2.Subscription:
    sent = subscription_pb2.Subscription(customer_id="acme", subscription_id="s1", **fields)
    answer = await accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=sent))
    return answer.subscription


@pytest.mark.parametrize("put", [put_customer, put_subscription])
async def test_a_put_replaces_custom_fields_and_plan_times(accounts: Stub, put: Any) -> None:
    kept = await put(
        accounts, plan_id="pro", plan_start_time=START, plan_end_time=END, custom_fields={"ä": "ö", "b": ""}
    )
    assert (kept.plan_start_time, kept.plan_end_time) == (START, END)
    assert dict(kept.custom_fields) == {"ä": "ö", "b": ""}
    kept = await put(accounts, plan_id="pro", plan_end_time=START)
    assert (kept.HasField("plan_start_time"), kept.plan_end_time) == (False, START)
    assert not kept.custom_fields
    kept = await put(accounts)
    assert not kept.HasField("plan_end_time")


async def test_custom_fields_and_plan_times_are_read_and_listed(accounts: Stub) -> None:
    fields: dict[str, Any] = {"plan_id": "pro", "plan_end_time": END, "custom_fields": {"a": "b"}}
    customer = await put_customer(accounts, **fields)
    assert (await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="acme"))).customer == customer
    assert list((await accounts.ListCustomers(messages.ListCustomersRequest())).customers) == [customer]
    subscription = await put_subscription(accounts, **fields)
    request = messages.GetSubscriptionRequest(customer_id="acme", subscription_id="s1")
    assert (await accounts.GetSubscription(request)).subscription == subscription
    listed = await accounts.ListSubscriptions(messages.ListSubscriptionsRequest())
    assert list(listed.subscriptions) == [subscription]


@own_server
@pytest.mark.parametrize("put", [put_customer, put_subscription])
async def test_an_equal_put_changes_neither_update_time_nor_epoch(
    accounts: Stub, shared: Database, org: int, clock: ManualClock, put: Any
) -> None:
    fields: dict[str, Any] = {"plan_id": "pro", "plan_end_time": END, "custom_fields": {"a": "1", "b": "2"}}
    await put(accounts, **fields)
    async with shared.transaction() as connection:
        before = await organizations.lock_shared(connection, org)
    clock.advance(HOUR)
    assert to_datetime((await put(accounts, **fields)).update_time) == NOW
    async with shared.transaction() as connection:
        assert await organizations.lock_shared(connection, org) == before
    fields["custom_fields"] = {"a": "1"}
    assert to_datetime((await put(accounts, **fields)).update_time) == NOW + HOUR


@pytest.mark.parametrize("put", [put_customer, put_subscription])
@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"plan_start_time": START, "plan_end_time": END}, ["plan_start_time", "plan_end_time"]),
        ({"plan_id": "pro", "plan_start_time": START, "plan_end_time": START}, ["plan_end_time"]),
        ({"plan_id": "pro", "plan_start_time": END, "plan_end_time": START}, ["plan_end_time"]),
        ({"custom_fields": {"": "v", "k": "\n"}}, ["custom_fields", "custom_fields['k']"]),
        ({"custom_fields": {str(number): "" for number in range(65)}}, ["custom_fields"]),
    ],
)
async def test_invalid_custom_fields_and_plan_times_are_named(
    accounts: Stub, put: Any, fields: dict[str, Any], paths: list[str]
) -> None:
    name = "customer" if put is put_customer else "subscription"
    await assert_violations(put(accounts, **fields), *(f"{name}.{path}" for path in paths))
