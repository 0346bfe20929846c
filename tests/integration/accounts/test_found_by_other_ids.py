"""Customers are found by external id and alias, and subscriptions by their own id alone."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import account_service_pb2_grpc, customer_pb2, subscription_pb2
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.identity import keys
from store.postgres.database import Database
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.running import metadata_of
from tests.support.server.sharing import shares_server

pytestmark = shares_server


Stub = account_service_pb2_grpc.AccountServiceStub
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
NOT_FOUND, EXISTS = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS


async def put(
    accounts: Stub, customer_id: str, external_id: str = "", *aliases: str, as_of: datetime = NOW, plan: str = ""
) -> customer_pb2.Customer:
    sent = customer_pb2.Customer(
        customer_id=customer_id,
        external_id=external_id,
        aliases=aliases,
        plan_id=plan,
        as_of_time=to_timestamp(as_of),
    )
    return (await accounts.PutCustomer(messages.PutCustomerRequest(customer=sent))).customer


async def found(accounts: Stub, **name: str) -> str:
    return (await accounts.GetCustomer(messages.GetCustomerRequest(**name))).customer.customer_id


async def test_a_customer_is_found_by_its_external_id_and_aliases(accounts: Stub) -> None:
    stored = await put(accounts, "acme", "crm-1", "z", "a")
    assert (stored.external_id, list(stored.aliases)) == ("crm-1", ["a", "z"])
    await put(accounts, "crm-1", "acme", "crm-1")
    assert await found(accounts, customer_id="crm-1") == "crm-1"
    assert await found(accounts, external_id="crm-1") == "acme"
    assert await found(accounts, external_id="acme") == "crm-1"
    assert await found(accounts, alias="crm-1") == "crm-1"
    assert [await found(accounts, alias=alias) for alias in "az"] == ["acme", "acme"]
    for name in ({"external_id": "a"}, {"alias": "acme"}):
        call = accounts.GetCustomer(messages.GetCustomerRequest(**name))
        await assert_refused(call, NOT_FOUND, "CUSTOMER_NOT_FOUND")
    with pytest.raises(grpc.aio.AioRpcError, match="no customer with the alias") as raised:
        await accounts.GetCustomer(messages.GetCustomerRequest(alias="x"))
    assert metadata_of(raised.value) == {"alias": "x"}


async def test_names_of_another_customer_are_refused_and_free_once_they_are_given_up(accounts: Stub) -> None:
    await put(accounts, "acme", "crm-1", "a", "b")
    for external_id, aliases, field in (("crm-1", [], "external_id"), ("", ["b", "c"], "alias")):
        sent = customer_pb2.Customer(customer_id="other", external_id=external_id, aliases=aliases)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await accounts.PutCustomer(messages.PutCustomerRequest(customer=sent))
        assert raised.value.code() is EXISTS
        assert metadata_of(raised.value) == {"customer_id": "acme", field: external_id or "b"}
    call = accounts.GetCustomer(messages.GetCustomerRequest(customer_id="other"))
    await assert_refused(call, NOT_FOUND, "CUSTOMER_NOT_FOUND")
    await put(accounts, "acme", "crm-2", "a", "c")
    await put(accounts, "other", "crm-1", "b")
    assert await found(accounts, alias="b") == "other"
    assert await found(accounts, external_id="crm-1") == "other"
    assert await found(accounts, external_id="crm-2") == "acme"


async def test_a_superseded_put_takes_no_names(accounts: Stub) -> None:
    await put(accounts, "acme", "new")
    assert (await put(accounts, "acme", "old", "a", as_of=NOW - timedelta(hours=1))).external_id == "new"
    await put(accounts, "other", "old", "a")
    assert await found(accounts, alias="a") == "other"


async def test_a_name_that_several_customers_want_at_once_goes_to_one(accounts: Stub) -> None:
    puts = (put(accounts, f"c{number}", "", "wanted") for number in range(8))
    answers = await asyncio.gather(*puts, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert {one.code() for one in refused} == {EXISTS}
    assert len(refused) == 7
    assert (await found(accounts, alias="wanted")).startswith("c")


async def test_lists_of_customers_are_filtered_by_external_id_and_alias(accounts: Stub) -> None:
    await put(accounts, "acme", "crm-1", "a", plan="gold")
    await put(accounts, "other", "crm-2", "b")
    wanted: list[tuple[list[str], dict[str, Any]]] = [
        (["acme"], {"external_id": "crm-1"}),
        (["other"], {"alias": "b"}),
        (["acme"], {"alias": "a", "external_id": "crm-1", "plan_id": "gold"}),
        ([], {"alias": "a", "external_id": "crm-2"}),
        ([], {"alias": "b", "plan_id": "gold"}),
        ([], {"alias": "crm-1"}),
    ]
    for expected, fields in wanted:
        request = messages.ListCustomersRequest(**fields, include_total_size=True)
        answer = await accounts.ListCustomers(request)
        assert [one.customer_id for one in answer.customers] == expected
        assert answer.total_size == len(expected)


async def test_names_are_of_one_organization(accounts: Stub, shared: Database, clock: ManualClock) -> None:
    await put(accounts, "acme", "crm-1", "a")
    async with shared.transaction() as connection:
        other = await keys.create_key(connection, f"other {datetime.now(UTC)}", clock.now())
    theirs = (("authorization", f"Bearer {other.key}"),)
    for name in ({"external_id": "crm-1"}, {"alias": "a"}):
        call = accounts.GetCustomer(messages.GetCustomerRequest(**name), metadata=theirs)
        await assert_refused(call, NOT_FOUND, "CUSTOMER_NOT_FOUND")
    sent = customer_pb2.Customer(customer_id="theirs", external_id="crm-1", aliases=["a"])
    await accounts.PutCustomer(messages.PutCustomerRequest(customer=sent), metadata=theirs)
    assert await found(accounts, alias="a") == "acme"


async def test_violations_of_names_are_named(accounts: Stub) -> None:
    get = accounts.GetCustomer
    await assert_violations(get(messages.GetCustomerRequest()), "customer_id")
    await assert_violations(get(messages.GetCustomerRequest(customer_id="a", alias=" b")), "alias", "alias")
    bad = customer_pb2.Customer(customer_id="acme", external_id="a\n", aliases=["a", "a", " "])
    await assert_violations(
        accounts.PutCustomer(messages.PutCustomerRequest(customer=bad)),
        *("customer.external_id", "customer.aliases[1]", "customer.aliases[2]"),
    )
    many = customer_pb2.Customer(customer_id="acme", aliases=[f"a{number}" for number in range(21)])
    await assert_violations(accounts.PutCustomer(messages.PutCustomerRequest(customer=many)), "customer.aliases")
    await assert_violations(
        accounts.ListCustomers(messages.ListCustomersRequest(external_id=" ", alias=" ")), "external_id", "alias"
    )


async def test_a_subscription_is_found_by_its_id_alone_if_one_customer_has_it(accounts: Stub) -> None:
    async def subscribe(customer_id: str, subscription_id: str) -> subscription_pb2.Subscription:
        sent = subscription_pb2.Subscription(customer_id=customer_id, subscription_id=subscription_id)
        return (await accounts.PutSubscription(messages.PutSubscriptionRequest(subscription=sent))).subscription

    first = await subscribe("acme", "s1")
    by_id = messages.GetSubscriptionRequest(subscription_id="s1")
    assert (await accounts.GetSubscription(by_id)).subscription == first
    second = await subscribe("other", "s1")
    with pytest.raises(grpc.aio.AioRpcError, match="2 customers have") as raised:
        await accounts.GetSubscription(by_id)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert metadata_of(raised.value) == {"subscription_id": "s1", "customer_count": "2"}
    await subscribe("acme", "s2")
    listed = await accounts.ListSubscriptions(
        messages.ListSubscriptionsRequest(subscription_id="s1", include_total_size=True)
    )
    assert list(listed.subscriptions) == [first, second]
    assert listed.total_size == 2
    by_id.subscription_id = "s3"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await accounts.GetSubscription(by_id)
    assert raised.value.code() is NOT_FOUND
    assert metadata_of(raised.value) == {"subscription_id": "s3"}
    bad = messages.ListSubscriptionsRequest(subscription_id=" ")
    await assert_violations(accounts.ListSubscriptions(bad), "subscription_id")
