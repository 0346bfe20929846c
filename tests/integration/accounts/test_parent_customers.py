"""Customers below others: which parents a put may give, over a real channel."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import account_service_pb2_grpc, customer_pb2
from server.calls.validation import to_timestamp
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server

pytestmark = shares_server

Stub = account_service_pb2_grpc.AccountServiceStub

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
HOUR = timedelta(hours=1)
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def put(
    accounts: Stub, customer_id: str, parent: str = "", *, validate_only: bool = False, **fields: Any
) -> customer_pb2.Customer:
    """Puts a customer below another one; returns what is stored."""
    customer = customer_pb2.Customer(customer_id=customer_id, parent_customer_id=parent, **fields)
    request = messages.PutCustomerRequest(customer=customer, validate_only=validate_only)
    return (await accounts.PutCustomer(request)).customer


async def parent_of(accounts: Stub, customer_id: str) -> str:
    answer = await accounts.GetCustomer(messages.GetCustomerRequest(customer_id=customer_id))
    return answer.customer.parent_customer_id


async def below(accounts: Stub, parent: str, **fields: Any) -> messages.ListCustomersResponse:
    return await accounts.ListCustomers(messages.ListCustomersRequest(parent_customer_id=parent, **fields))


async def put_chain(accounts: Stub, names: Sequence[str]) -> None:
    """Puts customers, each below the one before."""
    for parent, name in zip(("", *names), names, strict=False):
        await put(accounts, name, parent)


async def test_a_parent_comes_back_and_is_taken_away(accounts: Stub) -> None:
    assert (await put(accounts, "team", "acme")).parent_customer_id == "acme"
    assert await parent_of(accounts, "team") == "acme"
    assert (await put(accounts, "team")).parent_customer_id == ""
    assert await parent_of(accounts, "team") == ""


async def test_an_unknown_parent_is_created_with_defaults(accounts: Stub) -> None:
    await put(accounts, "team", "acme")
    made = (await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="acme"))).customer
    assert (made.currency, made.plan_id, made.HasField("as_of_time")) == ("USD", "", False)


async def test_a_put_that_only_validates_creates_no_parent(accounts: Stub) -> None:
    assert (await put(accounts, "team", "acme", validate_only=True)).parent_customer_id == "acme"
    assert list(await all_customers(accounts)) == []


async def test_the_customers_below_one_are_listed_by_page(accounts: Stub) -> None:
    for name in ("c", "a", "b"):
        await put(accounts, name, "acme")
    await put(accounts, "d", "a")
    first = await below(accounts, "acme", page_size=2, include_total_size=True)
    assert ([one.customer_id for one in first.customers], first.total_size) == (["a", "b"], 3)
    rest = await below(accounts, "acme", page_size=2, page_token=first.next_page_token)
    assert [one.customer_id for one in rest.customers] == ["c"]
    assert [one.customer_id for one in (await below(accounts, "a")).customers] == ["d"]
    assert (await below(accounts, "d")).customers == []


async def test_bad_ids_of_parents_are_violations(accounts: Stub) -> None:
    await assert_violations(put(accounts, "team", " acme"), "customer.parent_customer_id")
    await assert_violations(below(accounts, "\n"), "parent_customer_id")


@pytest.mark.parametrize("parent", ["a", "b", "e"])
async def test_a_customer_does_not_stand_above_itself(accounts: Stub, parent: str) -> None:
    await put_chain(accounts, "abcde")
    await assert_refused(put(accounts, "a", parent), PRECONDITION, "PARENT_CYCLE")
    assert await parent_of(accounts, "a") == ""


async def test_a_new_customer_is_not_its_own_parent(accounts: Stub) -> None:
    await assert_refused(put(accounts, "a", "a"), PRECONDITION, "PARENT_CYCLE")
    assert list(await all_customers(accounts)) == []


async def test_five_levels_are_possible_and_six_are_not(accounts: Stub) -> None:
    await put_chain(accounts, "abcde")
    await assert_refused(put(accounts, "f", "e"), PRECONDITION, "PARENT_TOO_DEEP")
    await put(accounts, "f", "d")
    # Those below a customer count too.
    await assert_refused(put(accounts, "a", "top"), PRECONDITION, "PARENT_TOO_DEEP")
    for name in "ef":
        await put(accounts, name)
    await put(accounts, "a", "top")
    await assert_refused(put(accounts, "e", "d"), PRECONDITION, "PARENT_TOO_DEEP")


async def test_what_is_refused_says_which_customers_it_is_about(accounts: Stub) -> None:
    await put_chain(accounts, "ab")
    with pytest.raises(grpc.aio.AioRpcError, match="'a' is the parent_customer_id 'b' or above it"):
        await put(accounts, "a", "b")


async def test_an_older_put_is_superseded_and_not_checked(accounts: Stub) -> None:
    await put_chain(accounts, "ab")
    older = await put(accounts, "a", "b", as_of_time=to_timestamp(NOW - HOUR))
    assert older.parent_customer_id == ""


async def test_a_repeated_put_of_a_parent_changes_nothing(accounts: Stub) -> None:
    await put_chain(accounts, "abcde")
    before = await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="c"))
    assert await put(accounts, "c", "b") == before.customer


async def test_two_puts_that_together_make_a_circle_do_not_both_succeed(accounts: Stub) -> None:
    for number in range(20):
        one, other = f"a{number}", f"b{number}"
        answers = await asyncio.gather(put(accounts, one, other), put(accounts, other, one), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert [reason_of(error) for error in refused] == ["ERROR_REASON_PARENT_CYCLE"]


async def test_concurrent_puts_of_a_long_chain_make_no_more_than_five_levels(accounts: Stub) -> None:
    names = [f"c{number}" for number in range(12)]
    calls = [put(accounts, name, parent) for parent, name in itertools.pairwise(names)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert {reason_of(error) for error in refused if isinstance(error, grpc.aio.AioRpcError)} == {
        "ERROR_REASON_PARENT_TOO_DEEP"
    }
    parents = {one.customer_id: one.parent_customer_id for one in await all_customers(accounts)}
    for name in names:
        levels, above = 1, name
        while above := parents.get(above, ""):
            levels += 1
        assert levels <= 5


async def all_customers(accounts: Stub) -> Sequence[customer_pb2.Customer]:
    return (await accounts.ListCustomers(messages.ListCustomersRequest())).customers
