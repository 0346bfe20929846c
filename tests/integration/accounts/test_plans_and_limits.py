"""Plans and limits over a real channel."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2_grpc,
    limit_pb2,
    limit_window_pb2,
    plan_pb2,
    scope_pb2,
)
from generated.tidemark.v1 import (
    account_service_pb2 as messages,
)
from runtime.clock import ManualClock
from server.calls.validation import to_datetime, to_timestamp
from store.identity import keys, organizations
from store.postgres.database import Database
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


Stub = account_service_pb2_grpc.AccountServiceStub

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
HOUR = timedelta(hours=1)
HOURLY = limit_window_pb2.LimitWindow(
    calendar=limit_window_pb2.CalendarWindow(unit=limit_window_pb2.CALENDAR_UNIT_HOUR)
)
ROLLING = limit_window_pb2.RollingWindow(duration=Duration(seconds=5 * 60 * 60))
EXACT = "12345678901234567890.123456789012345678"


async def put_plan(accounts: Stub, plan_id: str = "pro", **fields: Any) -> messages.PutPlanResponse:
    return await accounts.PutPlan(messages.PutPlanRequest(plan=plan_pb2.Plan(plan_id=plan_id, **fields)))


def limit(limit_id: str = "l1", amount: str = "10", customer: str = "acme", **fields: Any) -> limit_pb2.Limit:
    """A valid limit: of a customer's cost in USD unless the fields say otherwise."""
    defaults: dict[str, Any] = {}
    if "plan" not in fields:
        defaults["customer"] = scope_pb2.CustomerScope(customer_id=customer)
    if "quantity" not in fields:
        defaults["spend"] = access_pb2.SpendAccess(currency="USD")
    return limit_pb2.Limit(**{"limit_id": limit_id, "amount": amount, **defaults, **fields})


def groups(**values: str) -> list[limit_pb2.LimitGroup]:
    return [limit_pb2.LimitGroup(key=key, value=value) for key, value in values.items()]


async def put(accounts: Stub, sent: limit_pb2.Limit) -> messages.PutLimitResponse:
    return await accounts.PutLimit(messages.PutLimitRequest(limit=sent))


async def get(accounts: Stub, limit_id: str = "l1") -> limit_pb2.Limit:
    return (await accounts.GetLimit(messages.GetLimitRequest(limit_id=limit_id))).limit


@own_server
async def test_a_plan_is_replaced_by_a_newer_put_only(accounts: Stub, clock: ManualClock) -> None:
    first = await put_plan(accounts, display_name="Pro", custom_fields={"a": "b"}, as_of_time=to_timestamp(NOW))
    assert (first.plan.display_name, dict(first.plan.custom_fields)) == ("Pro", {"a": "b"})
    assert (await accounts.GetPlan(messages.GetPlanRequest(plan_id="pro"))).plan == first.plan
    older = await put_plan(accounts, display_name="Old", as_of_time=to_timestamp(NOW - HOUR))
    assert (older.plan, older.superseded) == (first.plan, True)
    clock.advance(HOUR)
    again = (await put_plan(accounts, display_name="Pro", custom_fields={"a": "b"})).plan
    assert (to_datetime(again.update_time), to_datetime(again.as_of_time)) == (NOW, NOW + HOUR)
    other = await put_plan(accounts, display_name="New")
    assert (other.plan.display_name, dict(other.plan.custom_fields), other.superseded) == ("New", {}, False)
    assert to_datetime(other.plan.update_time) == NOW + HOUR


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"plan": scope_pb2.PlanScope(plan_id="pro"), "groups": groups(a="1", b="")},
        {"quantity": access_pb2.QuantityAccess(metric_id="tokens"), "groups": [limit_pb2.LimitGroup(key="user")]},
        {"amount": EXACT},
        {"amount": ""},
        {"amount": "1", "enforcement": limit_pb2.LIMIT_ENFORCEMENT_SOFT},
        {"amount": "1", "enforcement": limit_pb2.LIMIT_ENFORCEMENT_HARD, "window": HOURLY},
        {"window": limit_window_pb2.LimitWindow(rolling=ROLLING)},
    ],
)
async def test_every_field_of_a_limit_comes_back(accounts: Stub, fields: dict[str, Any]) -> None:
    sent = limit(**fields, as_of_time=to_timestamp(NOW - HOUR))
    kept = (await put(accounts, sent)).limit
    assert await get(accounts) == kept
    assert to_datetime(kept.create_time) == to_datetime(kept.update_time) == NOW
    kept.ClearField("create_time")
    kept.ClearField("update_time")
    if not sent.HasField("window"):
        sent.window.billing_period.SetInParent()
    if not sent.enforcement:
        sent.enforcement = limit_pb2.LIMIT_ENFORCEMENT_NONE
    assert kept == sent


@own_server
async def test_a_limits_amount_is_replaced_by_a_newer_put_only(
    accounts: Stub, clock: ManualClock, shared: Database, org: int
) -> None:
    async def epoch() -> int:
        async with shared.transaction() as connection:
            return await organizations.lock_shared(connection, org)

    await put(accounts, limit(amount="1.50", as_of_time=to_timestamp(NOW)))
    before = await epoch()
    older = await put(accounts, limit(amount="1", as_of_time=to_timestamp(NOW - HOUR)))
    assert (older.limit.amount, older.superseded) == ("1.5", True)
    clock.advance(HOUR)
    assert to_datetime((await put(accounts, limit(amount="1.5"))).limit.update_time) == NOW
    assert await epoch() == before
    assert (await put(accounts, limit(amount="2"))).limit.amount == "2"
    assert await epoch() == before + 1
    assert (await put(accounts, limit(amount=""))).limit.amount == ""


@pytest.mark.parametrize(
    "other",
    [
        {"customer": "other"},
        {"plan": scope_pb2.PlanScope(plan_id="acme")},
        {"quantity": access_pb2.QuantityAccess(metric_id="USD")},
        {"spend": access_pb2.SpendAccess(currency="EUR")},
        {"groups": groups(a="1")},
        {"groups": [limit_pb2.LimitGroup(key="a")]},
    ],
)
async def test_a_put_that_changes_the_subject_of_a_limit_is_refused(accounts: Stub, other: dict[str, Any]) -> None:
    before = (await put(accounts, limit(groups=groups(a="2")))).limit
    changed = {"groups": groups(a="2"), **other}
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    await assert_refused(put(accounts, limit(**changed, amount="5")), precondition, "LIMIT_FIXED")
    assert await get(accounts) == before
    await put(accounts, limit("l2", **changed))
    # Another limit has the same subject, but the refused id is reported first.
    await assert_refused(put(accounts, limit(**changed)), precondition, "LIMIT_FIXED")
    older = await put(accounts, limit(**changed, as_of_time=to_timestamp(NOW - HOUR)))
    assert (older.limit, older.superseded) == (before, True)


async def test_a_second_limit_of_the_same_subject_is_refused(accounts: Stub) -> None:
    await put(accounts, limit(groups=groups(a="1", b="2")))
    same = limit("l2", groups=groups(b="2", a="1"))
    with pytest.raises(grpc.aio.AioRpcError, match="'l1'"):
        await put(accounts, same)
    await assert_refused(put(accounts, same), grpc.StatusCode.ALREADY_EXISTS, "LIMIT_EXISTS")
    await assert_refused(get(accounts, "l2"), grpc.StatusCode.NOT_FOUND, "LIMIT_NOT_FOUND")


async def test_one_of_two_concurrent_limits_of_the_same_subject_is_stored(accounts: Stub) -> None:
    calls = [put(accounts, limit(f"l{number}")) for number in range(5)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [error.code() for error in refused] == [grpc.StatusCode.ALREADY_EXISTS] * 4
    assert len((await accounts.ListLimits(messages.ListLimitsRequest())).limits) == 1


async def test_an_unknown_plan_or_limit_is_not_found(accounts: Stub) -> None:
    plan = accounts.GetPlan(messages.GetPlanRequest(plan_id="pro"))
    await assert_refused(plan, grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND")
    await assert_refused(get(accounts), grpc.StatusCode.NOT_FOUND, "LIMIT_NOT_FOUND")


async def test_all_violations_of_a_plan_and_a_limit_are_named(accounts: Stub) -> None:
    late = to_timestamp(NOW + HOUR)
    bad_plan = put_plan(accounts, "", display_name="\n", custom_fields={"": ""}, as_of_time=late)
    paths = ("plan_id", "display_name", "custom_fields", "as_of_time")
    await assert_violations(bad_plan, *(f"plan.{path}" for path in paths))
    bad_limit = put(accounts, limit_pb2.Limit(amount="-1", as_of_time=late))
    of_limit = ("limit_id", "holder", "access", "amount", "as_of_time")
    await assert_violations(bad_limit, *(f"limit.{path}" for path in of_limit))
    await assert_violations(accounts.GetPlan(messages.GetPlanRequest()), "plan_id")
    await assert_violations(accounts.GetLimit(messages.GetLimitRequest(limit_id="\0")), "limit_id")
    await assert_violations(accounts.ListPlans(messages.ListPlansRequest(page_size=-1)), "page_size")
    listing = messages.ListLimitsRequest(page_size=-1, customer_id=" ", plan_id=" ")
    await assert_violations(accounts.ListLimits(listing), "customer_id", "plan_id", "page_size")


async def test_plans_and_limits_are_listed_in_byte_order_by_page_and_filter(accounts: Stub) -> None:
    for number, name in enumerate(("B", "a", "é", "a-1", "C")):
        await put_plan(accounts, name)
        of_plan: dict[str, Any] = {"plan": scope_pb2.PlanScope(plan_id=name)}
        await put(accounts, limit(name, **of_plan) if number % 2 else limit(name, customer=name))
    plans: list[str] = []
    limits: list[str] = []
    token = ""
    while True:
        page = await accounts.ListPlans(messages.ListPlansRequest(page_size=2, page_token=token))
        assert len(page.plans) <= 2
        plans += [item.plan_id for item in page.plans]
        if not (token := page.next_page_token):
            break
    while True:
        found = await accounts.ListLimits(messages.ListLimitsRequest(page_size=2, page_token=token))
        assert len(found.limits) <= 2
        limits += [item.limit_id for item in found.limits]
        if not (token := found.next_page_token):
            break
    assert plans == limits == ["B", "C", "a", "a-1", "é"]
    for customer_id, plan_id, expected in (("B", "", ["B"]), ("", "a", ["a"]), ("", "B", []), ("B", "a", [])):
        request = messages.ListLimitsRequest(customer_id=customer_id, plan_id=plan_id)
        assert [item.limit_id for item in (await accounts.ListLimits(request)).limits] == expected


async def test_an_organization_sees_only_its_own_plans_and_limits(
    accounts: Stub, shared: Database, clock: ManualClock
) -> None:
    async with shared.transaction() as connection:
        other = await keys.create_key(connection, "other", clock.now())
    as_other = (("authorization", f"Bearer {other.key}"),)
    await put_plan(accounts, display_name="mine")
    await put(accounts, limit())
    for call, reason in (
        (accounts.GetPlan(messages.GetPlanRequest(plan_id="pro"), metadata=as_other), "PLAN_NOT_FOUND"),
        (accounts.GetLimit(messages.GetLimitRequest(limit_id="l1"), metadata=as_other), "LIMIT_NOT_FOUND"),
    ):
        await assert_refused(call, grpc.StatusCode.NOT_FOUND, reason)
    assert not (await accounts.ListPlans(messages.ListPlansRequest(), metadata=as_other)).plans
    assert not (await accounts.ListLimits(messages.ListLimitsRequest(), metadata=as_other)).limits
    theirs = messages.PutLimitRequest(limit=limit("l2", amount="7"))
    await accounts.PutLimit(theirs, metadata=as_other)  # a subject limited by one organization is free for the other
    theirs.limit.limit_id = "l1"
    await assert_refused(accounts.PutLimit(theirs, metadata=as_other), grpc.StatusCode.ALREADY_EXISTS, "LIMIT_EXISTS")
    assert (await get(accounts)).amount == "10"
