"""Bad input, puts out of order, reads, and the erasure of recharges."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from generated.tidemark.v1 import account_service_pb2, recharge_pb2
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from tests.support.balances.recharging import REQUESTED, Recharging, fixed, up_to
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, until

pytestmark = shares_server

BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"below": ""}, ["below"]),
    ({"below": "-1"}, ["below"]),
    ({"below": "1e2"}, ["below"]),
    ({"up_to": up_to("20")}, ["up_to.level"]),
    ({"up_to": up_to("")}, ["up_to.level"]),
    ({"up_to": up_to("100", "80.1")}, ["up_to.min_amount"]),
    ({"up_to": up_to("100", "-1")}, ["up_to.min_amount"]),
    ({"up_to": None}, ["size"]),
    ({"up_to": None, "fixed": fixed("0")}, ["fixed.amount"]),
    ({"up_to": None, "fixed": fixed("")}, ["fixed.amount"]),
    ({"max_amount_per_period": "0"}, ["max_amount_per_period"]),
    ({"max_amount_per_period": "x"}, ["max_amount_per_period"]),
    ({"max_count_per_period": -1}, ["max_count_per_period"]),
    ({"max_attempts": 101}, ["max_attempts"]),
    ({"max_attempts": -1}, ["max_attempts"]),
    ({"cooldown": Duration(seconds=31 * 86_400 + 1)}, ["cooldown"]),
    ({"cooldown": Duration(seconds=-1)}, ["cooldown"]),
    ({"failure_cooldown": Duration(nanos=-1)}, ["failure_cooldown"]),
    ({"report_timeout": Duration(seconds=59)}, ["report_timeout"]),
    ({"report_timeout": Duration(seconds=90 * 86_400, nanos=1)}, ["report_timeout"]),
    ({"balance_id": " prepaid"}, ["balance_id"]),
    ({"customer_id": "", "below": "y"}, ["customer_id", "below"]),
]


@pytest.mark.parametrize(("fields", "paths"), BAD)
async def test_a_bad_policy_is_refused_with_the_paths_of_its_fields(
    caller: Caller, fields: dict[str, Any], paths: list[str]
) -> None:
    good: dict[str, Any] = {
        "customer_id": "acme",
        "balance_id": "prepaid",
        "below": "20",
        "up_to": up_to("100"),
    }
    policy = recharge_pb2.RechargePolicy(**{name: one for name, one in (good | fields).items() if one is not None})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.accounts.PutRechargePolicy(
            account_service_pb2.PutRechargePolicyRequest(recharge_policy=policy), metadata=caller.metadata
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(refused.value) == [f"recharge_policy.{path}" for path in paths]


@pytest.mark.parametrize(
    ("result", "paths"),
    [
        ({}, ["result"]),
        ({"paid": recharge_pb2.RechargePaid(amount="0")}, ["paid.amount"]),
        ({"paid": recharge_pb2.RechargePaid(amount="-1", segment_number=-1)}, ["paid.amount", "paid.segment_number"]),
        ({"paid": recharge_pb2.RechargePaid(payment_reference="x\n")}, ["paid.payment_reference"]),
        ({"failed": recharge_pb2.RechargeFailed(failure_message="x" * 257)}, ["failed.failure_message"]),
    ],
)
async def test_a_bad_report_is_refused(caller: Caller, result: dict[str, Any], paths: list[str]) -> None:
    request = account_service_pb2.ReportRechargeRequest(customer_id="acme", recharge_id="rch_1", **result)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.accounts.ReportRecharge(request, metadata=caller.metadata)
    assert violations_of(refused.value) == paths


async def test_what_does_not_exist_is_named_in_the_refusal(caller: Caller) -> None:
    acme = Recharging(caller)
    for call, reason in (
        (acme.put_policy(), "ERROR_REASON_BALANCE_NOT_FOUND"),
        (acme.get_policy(), "ERROR_REASON_RECHARGE_POLICY_NOT_FOUND"),
        (acme.enable_policy(), "ERROR_REASON_RECHARGE_POLICY_NOT_FOUND"),
        (acme.delete_policy(), "ERROR_REASON_RECHARGE_POLICY_NOT_FOUND"),
        (acme.get("rch_1"), "ERROR_REASON_RECHARGE_NOT_FOUND"),
        (acme.paid("rch_1"), "ERROR_REASON_RECHARGE_NOT_FOUND"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.NOT_FOUND, reason)
    assert await caller.rows("SELECT 1 FROM customer WHERE organization_id = %(organization_id)s") == []


async def test_an_older_put_never_overwrites_a_newer_one(caller: Caller, clock: ManualClock) -> None:
    acme = Recharging(caller)
    await acme.put("prepaid", "50")
    newer = to_timestamp(clock.now() - timedelta(hours=1))
    older = to_timestamp(clock.now() - timedelta(hours=2))
    await acme.put_policy(as_of_time=newer)
    request = account_service_pb2.PutRechargePolicyRequest(recharge_policy=acme.policy(below="60", as_of_time=older))
    answer = await caller.accounts.PutRechargePolicy(request, metadata=caller.metadata)
    assert (answer.superseded, answer.recharge_policy.below) == (True, "20")
    assert await acme.recharges() == []


async def test_defaults_are_shown_as_they_apply(caller: Caller) -> None:
    acme = Recharging(caller)
    await acme.put("prepaid", "50")
    policy = await acme.put_policy()
    assert (policy.cooldown.seconds, policy.failure_cooldown.seconds) == (0, 3600)
    assert (policy.max_attempts, policy.report_timeout.seconds) == (3, 7 * 86_400)
    assert (policy.max_amount_per_period, policy.max_count_per_period) == ("", 0)
    policy = await acme.put_policy(cooldown=timedelta(hours=3))
    assert policy.failure_cooldown.seconds == 3 * 3600


async def test_lists_have_pages_states_and_totals(caller: Caller) -> None:
    acme = Recharging(caller)
    for number in range(5):
        await acme.put(f"b{number}", "10")
        await acme.put_policy(f"b{number}")
    await acme.failed((await acme.recharges())[0].recharge_id, permanent=True)
    request = account_service_pb2.ListRechargePoliciesRequest(page_size=2, include_total_size=True)
    seen = list[str]()
    while True:
        answer = await caller.accounts.ListRechargePolicies(request, metadata=caller.metadata)
        assert answer.total_size == 5
        seen += [one.balance_id for one in answer.recharge_policies]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert seen == [f"b{number}" for number in range(5)]
    off = account_service_pb2.ListRechargePoliciesRequest(state=recharge_pb2.RECHARGE_POLICY_STATE_DISABLED)
    [one] = (await caller.accounts.ListRechargePolicies(off, metadata=caller.metadata)).recharge_policies
    found = account_service_pb2.ListRechargesRequest(state=REQUESTED, page_size=3, include_total_size=True)
    first = await caller.accounts.ListRecharges(found, metadata=caller.metadata)
    found.page_token = first.next_page_token
    second = await caller.accounts.ListRecharges(found, metadata=caller.metadata)
    balances = {each.balance_id for each in (*first.recharges, *second.recharges)}
    assert (first.total_size, balances) == (4, set(seen) - {one.balance_id})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.accounts.ListRecharges(
            account_service_pb2.ListRechargesRequest(balance_id="b1"), metadata=caller.metadata
        )
    assert violations_of(refused.value) == ["balance_id"]


async def test_an_erasure_deletes_policies_recharges_and_their_notifications(caller: Caller) -> None:
    acme, other = Recharging(caller), Recharging(caller, "other")
    for one in (acme, other):
        await one.put("prepaid", "10")
        await one.put_policy()
    await caller.accounts.DeleteCustomer(
        account_service_pb2.DeleteCustomerRequest(customer_id="acme"), metadata=caller.metadata
    )
    left = "SELECT customer_id FROM {table} WHERE organization_id = %(organization_id)s ORDER BY customer_id"

    async def erased() -> bool:
        tables = ("recharge_policy", "recharge", "notification", "customer")
        rows = [await caller.rows(left.format(table=table)) for table in tables]
        return rows == [[("other",)]] * len(tables)

    await until(erased)
    assert len(await other.recharges()) == 1
