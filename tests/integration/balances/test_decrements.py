"""DecrementBalances: one amount from several balances, in the draw order, once, and evaluated at once."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import balance_entry_pb2, overage_pb2
from runtime.clock import ManualClock
from server.calls.answer_size import DEFAULT_ANSWER_BYTES
from tests.support.balances.holder import SEAT, Holder, alert
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, ShortTransition, beside
from tests.support.usage.organizations import organization

pytestmark = shares_server

ALLOW = overage_pb2.OVERAGE_POLICY_ALLOW
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
CONFLICT = grpc.StatusCode.ALREADY_EXISTS


@pytest.fixture
async def holder(caller: Caller) -> Holder:
    """A customer with two balances in USD: the second one is drawn on first."""
    holder = Holder(caller)
    await holder.put("late", "100", priority=2)
    await holder.put("early", "30", priority=1, draw=False)
    return holder


def request(amount: str, adjustment_id: str = "d1", **fields: Any) -> messages.DecrementBalancesRequest:
    sent = messages.DecrementBalancesRequest(customer_id="acme", adjustment_id=adjustment_id, amount=amount, **fields)
    if not sent.HasField("quantity"):
        sent.spend.currency = "USD"
    return sent


async def decrement(holder: Holder, *args: str, **fields: Any) -> messages.DecrementBalancesResponse:
    caller = holder.caller
    return await caller.accounts.DecrementBalances(request(*args, **fields), metadata=caller.metadata)


def short(entries: Any) -> list[tuple[str, str, str, str]]:
    return [(one.balance_id, one.amount, one.remaining, one.customer_remaining) for one in entries]


async def test_a_decrement_takes_from_balances_in_the_draw_order(holder: Holder) -> None:
    await holder.put("other unit", "500", currency="EUR")
    answer = await decrement(holder, "45.5", custom_fields={"order": "o-1"})
    assert short(answer.entries) == [("early", "-30", "0", "100"), ("late", "-15.5", "84.5", "84.5")]
    assert {one.type for one in answer.entries} == {balance_entry_pb2.BALANCE_ENTRY_TYPE_ADJUSTMENT}
    assert all((one.adjustment_id, dict(one.custom_fields)) == ("d1", {"order": "o-1"}) for one in answer.entries)
    assert (answer.remaining, answer.overage, answer.replayed) == ("84.5", "0", False)
    assert await holder.remaining() == {"early": 0, "late": Decimal("84.5"), "other unit": 500}
    listed = [one for one in await holder.entries() if one.adjustment_id]
    assert listed == list(answer.entries)


async def test_a_repeated_decrement_gets_the_first_answer_from_another_server_too(holder: Holder) -> None:
    first = await decrement(holder, "45.5", custom_fields={"order": "o-1"})
    async with beside(holder.caller) as other:
        again = await decrement(Holder(other), "45.5", custom_fields={"order": "o-1"})
    assert again.replayed
    again.replayed = False
    assert again == first
    answers = await asyncio.gather(*(decrement(holder, "1", "d2") for _ in range(5)))
    assert sorted(answer.replayed for answer in answers) == [False, True, True, True, True]
    assert sum((await holder.remaining()).values()) == Decimal("83.5")


async def test_an_adjustment_id_with_other_fields_is_refused(holder: Holder) -> None:
    await decrement(holder, "10")
    accounts, metadata = holder.caller.accounts, holder.caller.metadata
    for other in (request("11"), request("10", balance_ids=["late"]), request("10", custom_fields={"a": "b"})):
        await assert_refused(accounts.DecrementBalances(other, metadata=metadata), CONFLICT, "ADJUSTMENT_CONFLICT")
    adjustment = messages.AdjustBalanceRequest(
        customer_id="acme", balance_id="late", adjustment_id="d1", amount="-10", custom_fields={"why": "typo"}
    )
    await assert_refused(accounts.AdjustBalance(adjustment, metadata=metadata), CONFLICT, "ADJUSTMENT_CONFLICT")
    adjustment.adjustment_id = "a1"
    await accounts.AdjustBalance(adjustment, metadata=metadata)
    await assert_refused(
        accounts.DecrementBalances(request("10", "a1"), metadata=metadata), CONFLICT, "ADJUSTMENT_CONFLICT"
    )
    [entry] = [one for one in await holder.entries() if one.adjustment_id == "a1"]
    assert (entry.customer_remaining, dict(entry.custom_fields)) == ("110", {"why": "typo"})
    adjustment.custom_fields["why"] = "other"
    await assert_refused(accounts.AdjustBalance(adjustment, metadata=metadata), CONFLICT, "ADJUSTMENT_CONFLICT")


async def test_a_decrement_of_too_much_is_refused_and_takes_nothing(holder: Holder) -> None:
    await holder.put("overdraws", "5", priority=3, allow_overage=True)
    with pytest.raises(grpc.aio.AioRpcError, match="can give 135 now") as raised:
        await decrement(holder, "135.01")
    assert raised.value.code() is REFUSED
    assert await holder.remaining() == {"early": 30, "late": 100, "overdraws": 5}
    assert (await decrement(holder, "135")).remaining == "0"


async def test_an_allowed_overage_is_of_the_customer_or_of_the_balance_that_overdraws(holder: Holder) -> None:
    await holder.caller.send(holder.caller.event("e1", cost="110", metric="calls"))
    assert await holder.overage() == {"USD": 10}
    first = await decrement(holder, "35", overage_policy=ALLOW)
    assert (short(first.entries), first.overage, first.remaining) == ([("early", "-30", "0", "0")], "5", "0")
    assert await holder.overage() == {"USD": 15}
    await holder.put("overdraws", "5", priority=3, allow_overage=True)
    second = await decrement(holder, "7", "d2", overage_policy=ALLOW)
    assert (short(second.entries), second.overage) == ([("overdraws", "-7", "-2", "-2")], "0")
    assert await holder.overage() == {"USD": 15}


async def test_a_correction_of_usage_does_not_give_back_a_decrement(holder: Holder) -> None:
    await holder.spend("e1", "10")
    await decrement(holder, "40")
    await holder.spend("e2", "-25")
    assert await holder.remaining() == {"early": 0, "late": 90}
    assert await holder.overage() == {"USD": -15}


async def test_only_named_balances_give_those_of_seats_and_of_some_metrics(holder: Holder) -> None:
    await holder.put("seat", "50", kind=SEAT, seat=("user", "ann"))
    await holder.put("of calls", "50", draw_down_metric_ids=["calls"])
    assert (await decrement(holder, "1", "d1")).remaining == "229"
    named = await decrement(holder, "60", "d2", balance_ids=["seat", "of calls"])
    assert sum(Decimal(one.amount) for one in named.entries) == -60
    assert await holder.remaining() == {"early": 29, "late": 100, "of calls": 0, "seat": 40}
    await holder.void("late")
    accounts, metadata = holder.caller.accounts, holder.caller.metadata
    voided = request("1", "d3", balance_ids=["late"])
    await assert_refused(accounts.DecrementBalances(voided, metadata=metadata), REFUSED, "BALANCE_VOIDED")
    for unknown in (request("1", "d3", balance_ids=["no"]), request("1", "d3", balance_ids=["early"])):
        if "early" in unknown.balance_ids:
            unknown.spend.currency = "EUR"
        call = accounts.DecrementBalances(unknown, metadata=metadata)
        await assert_refused(call, grpc.StatusCode.NOT_FOUND, "BALANCE_NOT_FOUND")


async def test_segments_that_are_not_active_give_nothing(caller: Caller) -> None:
    holder, now = Holder(caller), caller.clock.now()
    day = timedelta(days=1)
    spans = [("10", now - day, now), ("20", now, now + day), ("40", now + day, None)]
    await holder.put("b", spans=spans, metric="calls")
    sent = request("20")
    sent.quantity.metric_id = "calls"
    answer = await caller.accounts.DecrementBalances(sent, metadata=caller.metadata)
    assert [(one.segment_number, one.remaining) for one in answer.entries] == [(2, "0")]
    sent.adjustment_id = "d2"
    await assert_refused(
        caller.accounts.DecrementBalances(sent, metadata=caller.metadata), REFUSED, "BALANCES_INSUFFICIENT"
    )


async def test_a_decrement_is_evaluated_in_its_transaction(holder: Holder) -> None:
    await holder.caller.create(alert("50", low_remaining_commit_balance_reached={"spend": {"currency": "USD"}}))
    await decrement(holder, "79")
    assert await holder.notified() == []
    await decrement(holder, "1", "d2")
    assert await holder.notified() == [[ShortTransition("REACHED", "50", "51", "50", "")]]
    await decrement(holder, "1", "d2")
    validated = request("5", "d3", validate_only=True)
    answer = await holder.caller.accounts.DecrementBalances(validated, metadata=holder.caller.metadata)
    assert (answer.remaining, answer.replayed) == ("45", False)
    assert await holder.notified(1)
    assert sum((await holder.remaining()).values()) == 50


async def test_concurrent_decrements_and_usage_take_everything_once(holder: Holder) -> None:
    async def take(number: int) -> None:
        await decrement(holder, "2", f"d{number}", overage_policy=ALLOW)

    async def use(number: int) -> None:
        await holder.spend(f"e{number}", "3")

    await asyncio.gather(*(take(number) for number in range(30)), *(use(number) for number in range(30)))
    taken = 130 - sum((await holder.remaining()).values()) + (await holder.overage()).get("USD", Decimal(0))
    assert taken == 30 * 2 + 30 * 3
    entries = await holder.entries()
    for balance_id, remaining in (await holder.remaining()).items():
        assert sum(Decimal(one.amount) for one in entries if one.balance_id == balance_id) == remaining


async def test_two_organizations_decrement_their_own_balances(holder: Holder, clock: ManualClock) -> None:
    _, key = await organization(holder.caller.database_url, clock)
    theirs = (("authorization", f"Bearer {key}"),)
    call = holder.caller.accounts.DecrementBalances(request("10"), metadata=theirs)
    await assert_refused(call, REFUSED, "BALANCES_INSUFFICIENT")
    await decrement(holder, "10")
    allowed = request("7", overage_policy=ALLOW)
    answer = await holder.caller.accounts.DecrementBalances(allowed, metadata=theirs)
    assert (list(answer.entries), answer.overage, answer.replayed) == ([], "7", False)
    assert await holder.overage() == {}


async def test_all_violations_of_a_decrement_are_named(caller: Caller) -> None:
    bad = messages.DecrementBalancesRequest(
        customer_id=" ",
        amount="0",
        balance_ids=["a", "a", ""],
        overage_policy=9,  # type: ignore[arg-type]  # an unknown number
        custom_fields={"": "x"},
    )
    await assert_violations(
        caller.accounts.DecrementBalances(bad, metadata=caller.metadata),
        *("customer_id", "adjustment_id", "access", "amount", "balance_ids[1]", "balance_ids[2]"),
        *("overage_policy", "custom_fields"),
    )
    many = request("-1", balance_ids=[f"b{number}" for number in range(101)])
    await assert_violations(
        caller.accounts.DecrementBalances(many, metadata=caller.metadata), "amount", "balance_ids"
    )


async def test_a_put_of_a_new_balance_only_is_refused_if_the_balance_exists(holder: Holder) -> None:
    accounts, metadata = holder.caller.accounts, holder.caller.metadata
    got = messages.GetBalanceRequest(customer_id="acme", balance_id="late")
    balance = (await accounts.GetBalance(got, metadata=metadata)).balance
    again = messages.PutBalanceRequest(balance=balance, only_if_new=True)
    await assert_refused(accounts.PutBalance(again, metadata=metadata), CONFLICT, "BALANCE_EXISTS")
    again.balance.balance_id = "new"
    again.balance.display_name, again.balance.cost_basis = "New", "0.0125"
    put = (await accounts.PutBalance(again, metadata=metadata)).balance
    assert (put.display_name, put.cost_basis) == ("New", "0.0125")
    got.balance_id = "new"
    assert (await accounts.GetBalance(got, metadata=metadata)).balance == put
    await holder.void("new")
    await assert_refused(accounts.PutBalance(again, metadata=metadata), CONFLICT, "BALANCE_EXISTS")
    again.balance.balance_id, again.balance.cost_basis = "newer", "-1"
    await assert_violations(accounts.PutBalance(again, metadata=metadata), "balance.cost_basis")


async def test_entries_that_do_not_fit_into_the_answer_are_counted_and_listed(caller: Caller) -> None:
    """Every entry repeats the fields of the decrement."""
    holder = Holder(caller)
    for number in range(60):
        await holder.put(f"balance-{number:02d}", "1", priority=number)
    custom_fields = {f"{number:02d}".ljust(128, "k"): "👍" * 256 for number in range(64)}
    answer = await decrement(holder, "60", custom_fields=custom_fields)
    assert DEFAULT_ANSWER_BYTES * 9 // 10 < answer.ByteSize() <= DEFAULT_ANSWER_BYTES
    assert len(answer.entries) + answer.omitted_entry_count == 60
    listed = [one for one in await holder.entries() if one.adjustment_id == "d1"]
    assert len(listed) == 60
    assert listed[: len(answer.entries)] == list(answer.entries)
    again = await decrement(holder, "60", custom_fields=custom_fields)
    assert again.replayed
    assert (again.entries, again.omitted_entry_count) == (answer.entries, answer.omitted_entry_count)
