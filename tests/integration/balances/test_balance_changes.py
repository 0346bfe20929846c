"""Balances that change while no alert watches, within one batch, and by facts: each transition notifies once."""

from decimal import Decimal

import pytest

from generated.tidemark.v1 import account_service_pb2
from tests.support.balances.holder import CREDIT, LICENSE, SEAT, Holder
from tests.support.balances.wording import create, notified_kinds, values, written
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import BOTH, Caller, ShortTransition, shortened

pytestmark = shares_server

ACME = 'customer { customer_id: "acme" }'
GOLD = 'plan { plan_id: "gold" }'
BALANCE = "low_remaining_commit_balance_reached {}"
PERCENT = "low_remaining_commit_percentage_reached {}"
SEATS = 'low_remaining_seat_balance_reached { seat_filter { seat_group_key: "user" } }'


@pytest.mark.parametrize("evaluate", [True, False])
async def test_new_alert_after_an_archived_one_starts_from_the_present_balances(
    caller: Caller, evaluate: bool
) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100")
    await acme.put("s1", "100", kind=SEAT, seat=("user", "ann"))
    first = [await create(acme, one, "20") for one in (BALANCE, PERCENT, SEATS)]
    await acme.spend("e1", "10")
    await acme.spend("e2", "10", user="ann")
    for alert_id in first:
        await caller.archive(alert_id)
    await acme.spend("e3", "30")
    await acme.spend("e4", "30", user="ann")
    await acme.adjust("c1", "100")
    second = [await create(acme, one, "20", evaluate=evaluate) for one in (BALANCE, PERCENT, SEATS)]
    assert [await values(acme, one) for one in second] == [{(): 160}, {(): 80}, {("ann",): 60}]
    assert await acme.spend("e5", "120") == [ShortTransition("REACHED", "20", "80", "20", "e5")]
    assert await acme.spend("e6", "20") == [ShortTransition("REACHED", "20", "40", "20", "e6")]
    assert await acme.spend("e7", "39.99", user="ann") == []
    assert await acme.spend("e8", "0.01", user="ann") == [ShortTransition("REACHED", "20", "20.01", "20", "e8")]


async def test_customer_that_returns_to_the_plan_is_read_again(caller: Caller) -> None:
    acme, other = Holder(caller), Holder(caller, "other")
    for holder in (acme, other):
        await holder.plan("gold")
        await holder.put("c1", "100")
    low = await create(acme, BALANCE, "20", scope=GOLD)
    await other.spend("o1", "50")
    await other.plan("silver")
    assert await other.spend("o2", "45") == []
    await other.plan("gold")
    assert await notified_kinds(other, low) == ["REACHED"]
    assert await values(acme, low) == {(): 100}
    assert await values(other, low) == {(): 5}
    assert await other.spend("o3", "-45") == [ShortTransition("RESOLVED", "20", "5", "50", "o3")]
    assert await notified_kinds(acme, low) == []


async def test_reached_and_resolved_within_one_batch_are_both_notified(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100")
    await create(acme, BALANCE, "20")
    costs = ("50", "35", "-10", "10.5", "-20")
    batch = [caller.event(f"e{number}", cost=cost) for number, cost in enumerate(costs)]
    answer = await caller.send(*batch)
    expected = [
        ShortTransition("REACHED", "20", "50", "15", "e1"),
        ShortTransition("RESOLVED", "20", "15", "25", "e2"),
        ShortTransition("REACHED", "20", "25", "14.5", "e3"),
        ShortTransition("RESOLVED", "20", "14.5", "34.5", "e4"),
    ]
    assert shortened(answer.transitions) == expected
    assert await acme.notified(1) == [expected]
    assert not (await caller.send(*batch)).transitions
    assert await acme.remaining() == {"c1": Decimal("34.5")}


async def test_thresholds_at_zero_and_below_are_reached_exactly(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("k1", "10", kind=CREDIT, allow_overage=True)
    await create(acme, "low_remaining_contract_credit_balance_reached {}", "0", "-5.000000000000000001")
    assert await acme.spend("e1", "9.999999999999999999") == []
    assert [one.level for one in await acme.spend("e2", "0.000000000000000001")] == ["0"]
    assert await acme.spend("e3", "5") == []
    assert [one.level for one in await acme.spend("e4", "0.000000000000000001")] == ["-5.000000000000000001"]


async def test_older_balance_changes_and_notifies_nothing(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100")
    low = await create(acme, BALANCE, "20")
    before = caller.clock.now().replace(year=2025)
    await acme.put("c1", "10", as_of_time=before)
    assert await values(acme, low) == {(): 100}
    assert await notified_kinds(acme, low) == []


async def test_lowered_grant_and_voided_balance_notify(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100")
    await acme.put("c2", "100", priority=2)
    low = await create(acme, BALANCE, "120", "100", "0")
    await acme.spend("e1", "50")
    assert await values(acme, low) == {(): 150}
    await acme.put("c1", "20")
    await acme.void("c2")
    shown = [[(one.kind, one.level, one.value) for one in each] for each in await acme.notified(2)]
    assert shown == [
        [("REACHED", "120", "70"), ("REACHED", "100", "70")],
        [("REACHED", "0", "-30")],
    ]


async def test_hysteresis_and_recurring_percentages_hold_after_a_further_grant(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "30")
    await acme.put("l1", "30", kind=LICENSE, license_type="pro", metric="launches")
    low = written(PERCENT)
    low.thresholds.add(value="20", resolve_value="50", notify_on=BOTH)
    await caller.create(low)
    used = written('license_balance_threshold_reached { license_type: "pro" }', "50", scope=ACME)
    used.thresholds.add(recurring_step="10", notify_on=BOTH)
    await caller.create(used)

    assert [one.level for one in await acme.spend("e1", "24")] == ["20"]  # 6 of 30
    assert await acme.spend("e2", "-8.99") == []  # 14.99 of 30
    await acme.adjust("c1", "0.01")  # 15 of 30.01
    assert len(await caller.notifications()) == 1
    assert await acme.spend("e3", "-0.004") == []
    crossed = await acme.spend("e4", "-0.001")  # 15.005 of 30.01
    assert [(one.kind, one.level, one.value) for one in crossed] == [("RESOLVED", "20", "50")]
    await acme.adjust("c1", "69.99")  # 84.995 of 100
    assert [one.level for one in await acme.spend("e5", "64.995")] == ["20"]

    async def launch(event_id: str, number: str) -> list[tuple[str, str]]:
        answer = await caller.send(caller.event(event_id, number, metric="launches"))
        return [(one.kind, one.level) for one in shortened(answer.transitions)]

    assert await launch("l1", "17.9") == [("REACHED", "50")]
    assert await launch("l2", "0.1") == [("REACHED", "60")]
    await acme.adjust("l1", "6")  # 18 of 36
    assert await launch("l3", "3.6") == [("REACHED", "60")]
    assert await launch("l4", "14.4") == [("REACHED", level) for level in ("70", "80", "90", "100")]
    assert await launch("l5", "-14.4") == [("RESOLVED", level) for level in ("100", "90", "80", "70")]


async def test_overages_are_listed_in_pages_with_currencies_first(caller: Caller) -> None:
    acme = Holder(caller)
    currencies = ("EUR", "USD", "credits")
    for currency in currencies:
        await acme.put(currency, "1", currency=currency)
        await caller.send(caller.event(f"e-{currency}", "1", "acme", cost="3", currency=currency))
    await acme.put("calls", "1", metric="calls")
    await acme.put("tokens", "1", metric="tokens")
    await caller.send(caller.event("e-calls", "5", "acme"))
    found, token = [], ""
    for size in (2, 2):
        request = account_service_pb2.ListOveragesRequest(customer_id="acme", page_size=size, page_token=token)
        answer = await caller.accounts.ListOverages(request, metadata=caller.metadata)
        found += [(one.spend.currency or one.quantity.metric_id, one.amount) for one in answer.overages]
        token = answer.next_page_token
    assert (found, token) == ([("EUR", "2"), ("USD", "2"), ("credits", "2"), ("calls", "4")], "")
