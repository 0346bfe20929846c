"""First evaluation of alerts on balances: earlier balances, customers without balances, new and changed plans."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_service_pb2,
    customer_alert_pb2,
    customer_pb2,
)
from runtime.clock import ManualClock
from tests.support.balances.holder import COMMIT, CREDIT, GRANT, LICENSE, SEAT, Holder
from tests.support.balances.wording import create, notified_kinds, values, written
from tests.support.facts.refusals import assert_refused
from tests.support.server.running import status_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, ShortTransition, explained

pytestmark = shares_server

OK, IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK, customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
ACME = 'customer { customer_id: "acme" }'
GOLD, SILVER = 'plan { plan_id: "gold" }', 'plan { plan_id: "silver" }'

Act = Callable[[Holder], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """A condition with the steps that reach its threshold, resolve it, and reach it again."""

    condition: str
    level: str
    reach: tuple[Act, ...]
    resolve: Act
    reach_again: Act


def ends_in(days: int) -> Act:
    async def put(acme: Holder) -> None:
        now = acme.caller.clock.now()
        await acme.put("c1", spans=[("1", now - timedelta(days=9), now + timedelta(days=days))])

    return put


def plan_ends_in(days: int) -> Act:
    return lambda acme: acme.plan(end=acme.caller.clock.now() + timedelta(days=days))


def spends(event_id: str, cost: str, user: str = "") -> Act:
    return lambda acme: acme.spend(event_id, cost, user=user)


CASES = (
    Case(
        "low_remaining_commit_balance_reached {}",
        "20",
        (lambda acme: acme.put("c1", "10"),),
        lambda acme: acme.adjust("c1", "50"),
        spends("e1", "45"),
    ),
    Case(
        "low_remaining_contract_credit_percentage_reached {}",
        "20",
        (lambda acme: acme.put("k1", "100", kind=CREDIT), spends("e1", "90")),
        spends("e2", "-50"),
        spends("e3", "50"),
    ),
    Case(
        "low_remaining_contract_credit_and_commit_balance_reached { alert_specifiers {"
        ' custom_field_filters { entity: CUSTOM_FIELD_ENTITY_COMMIT key: "team" } } }',
        "20",
        (lambda acme: acme.put("c1", "10", custom_fields={"team": "a"}),),
        lambda acme: acme.adjust("c1", "50"),
        spends("e1", "45"),
    ),
    Case("low_remaining_days_for_commit_segment_reached {}", "7", (ends_in(3),), ends_in(10), ends_in(3)),
    Case(
        'low_remaining_seat_balance_reached { seat_filter { seat_group_key: "user" } }',
        "2",
        (lambda acme: acme.put("s1", "10", kind=SEAT, seat=("user", "ann")), spends("e1", "9", user="ann")),
        spends("e2", "-5", user="ann"),
        spends("e3", "5", user="ann"),
    ),
    Case("low_remaining_days_in_plan_reached {}", "7", (plan_ends_in(3),), plan_ends_in(10), plan_ends_in(3)),
    Case(
        "credit_balance_dropped {}",
        "20",
        (lambda acme: acme.put("g1", "10", kind=GRANT),),
        lambda acme: acme.adjust("g1", "50"),
        spends("e1", "45"),
    ),
    Case(
        'license_balance_threshold_reached { license_type: "pro" }',
        "50",
        (
            lambda acme: acme.put("l1", "10", kind=LICENSE, license_type="pro", metric="launches", draw=False),
            lambda acme: acme.adjust("l1", "-6"),
        ),
        lambda acme: acme.adjust("l1", "30"),
        lambda acme: acme.adjust("l1", "-20"),
    ),
)


@pytest.mark.parametrize("evaluate", [True, False], ids=["notified", "marked silently"])
async def test_threshold_already_reached_at_creation_notifies_unless_evaluate_on_create_is_false(
    caller: Caller, evaluate: bool
) -> None:
    for number, case in enumerate(CASES):
        acme = Holder(caller, f"acme-{number}")
        for act in case.reach:
            await act(acme)
        scope = f'customer {{ customer_id: "{acme.customer}" }}'
        alert_id = await create(acme, case.condition, case.level, evaluate=evaluate, scope=scope)
        state = await caller.state(alert_id, acme.customer)
        assert state.status == IN_ALARM, case.condition
        assert [one.silent for one in state.gauges[0].thresholds] == [not evaluate], case.condition
        assert await notified_kinds(acme, alert_id) == (["REACHED"] if evaluate else []), case.condition
        await case.resolve(acme)
        assert (await caller.state(alert_id, acme.customer)).status == OK, case.condition
        await case.reach_again(acme)
        notified = ["REACHED", "RESOLVED", "REACHED"] if evaluate else ["REACHED"]
        assert await notified_kinds(acme, alert_id) == notified, case.condition


async def test_threshold_reached_while_the_alert_is_disabled_notifies_when_it_is_enabled(caller: Caller) -> None:
    """With `evaluate_on_create: false`, a threshold that is reached after the creation notifies."""
    for number, case in enumerate(CASES):
        acme = Holder(caller, f"acme-{number}")
        scope = f'customer {{ customer_id: "{acme.customer}" }}'
        alert_id = await create(acme, case.condition, case.level, evaluate=False, scope=scope)
        silent = await notified_kinds(acme, alert_id)
        off, on = (
            alert_service_pb2.DisableAlertRequest(alert_id=alert_id),
            alert_service_pb2.EnableAlertRequest(alert_id=alert_id),
        )
        await caller.alerts.DisableAlert(off, metadata=caller.metadata)
        for act in case.reach:
            await act(acme)
        await caller.alerts.EnableAlert(on, metadata=caller.metadata)
        await caller.backfilled(alert_id)
        assert (silent, await notified_kinds(acme, alert_id)) == ([], ["REACHED"]), case.condition


@pytest.mark.parametrize("evaluate", [True, False])
async def test_credit_balance_found_depleted_or_recovered_at_creation_is_no_transition(
    caller: Caller, evaluate: bool
) -> None:
    acme = Holder(caller)
    await acme.put("g1", "10", kind=GRANT, allow_overage=True)
    await acme.put("g2", "10", kind=GRANT, currency="EUR")
    await acme.spend("e1", "15")
    empty = await create(acme, "credit_balance_depleted {}", evaluate=evaluate, scope=ACME)
    full = await create(acme, 'credit_balance_recovered { currency: "EUR" }', evaluate=evaluate, scope=ACME)
    await acme.spend("e2", "1")
    await acme.adjust("g2", "1")
    assert [await notified_kinds(acme, one) for one in (empty, full)] == [[], []]
    await acme.adjust("g1", "10")
    await acme.adjust("g2", "-11")
    assert [await notified_kinds(acme, one) for one in (empty, full)] == [[], []]
    await acme.adjust("g1", "-10")
    await acme.adjust("g2", "0.01")
    assert [await notified_kinds(acme, one) for one in (empty, full)] == [["REACHED"], ["REACHED"]]


NEVER_GRANTED = (
    "low_remaining_commit_balance_reached",
    "low_remaining_contract_credit_balance_reached",
    "low_remaining_contract_credit_and_commit_balance_reached",
    "low_credit_balance_reached",
    "credit_balance_dropped",
)
NO_DATA = (
    "low_remaining_commit_percentage_reached",
    "low_remaining_contract_credit_percentage_reached",
    "low_remaining_contract_credit_and_commit_percentage_reached",
    "low_remaining_credit_percentage_reached",
)


async def test_customer_without_balances_reads_zero_or_has_no_data(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.spend("e0", "1")
    low = {kind: await create(acme, f"{kind} {{}}", "20", scope=ACME) for kind in NEVER_GRANTED}
    percent = {kind: await create(acme, f"{kind} {{}}", "20") for kind in NO_DATA}
    for kind, alert_id in low.items():
        assert await values(acme, alert_id) == {(): 0}, kind
        assert await notified_kinds(acme, alert_id) == ["REACHED"], kind
        assert (await caller.state(alert_id)).status == IN_ALARM, kind
    for kind, alert_id in percent.items():
        state = await caller.state(alert_id)
        assert (state.no_data, state.status) == (True, OK), kind
        assert await notified_kinds(acme, alert_id) == [], kind
    for granted in (COMMIT, CREDIT, GRANT):
        await acme.put(f"b{granted}", "100", kind=granted)
    for kind, alert_id in low.items():
        assert await notified_kinds(acme, alert_id) == ["REACHED", "RESOLVED"], kind
    for kind, alert_id in percent.items():
        assert await values(acme, alert_id) == {(): 100}, kind
        assert not (await caller.state(alert_id)).no_data, kind
        assert await notified_kinds(acme, alert_id) == [], kind


async def test_new_customer_is_evaluated_when_usage_or_a_fact_registers_it(caller: Caller) -> None:
    low = await create(Holder(caller), "low_credit_balance_reached {}", "20")
    percent = await create(Holder(caller), "low_remaining_credit_percentage_reached {}", "20")
    used, put, granted = Holder(caller, "used"), Holder(caller, "put"), Holder(caller, "granted")
    await used.spend("e1", "1")
    await caller.put_customer(customer_pb2.Customer(customer_id="put"))
    await granted.put("g1", "100", kind=GRANT)
    assert [await notified_kinds(one, low) for one in (used, put, granted)] == [["REACHED"], ["REACHED"], []]
    assert [await notified_kinds(one, percent) for one in (used, put, granted)] == [[], [], []]


async def test_plan_alert_covers_a_customer_only_while_it_is_on_the_plan(caller: Caller) -> None:
    acme, other = Holder(caller), Holder(caller, "other")
    await acme.put("c1", "10")
    await other.put("c1", "10")
    low = await create(acme, "low_remaining_commit_balance_reached {}", "20", scope=GOLD)
    await assert_refused(caller.state(low), grpc.StatusCode.NOT_FOUND, "ALERT_NOT_FOUND")
    await acme.plan("gold")
    assert await acme.notified(1) == [[ShortTransition("REACHED", "20", "10", "10", "")]]
    await acme.plan("silver")
    await acme.adjust("c1", "50")
    await acme.plan("gold")
    assert await notified_kinds(acme, low) == ["REACHED", "RESOLVED"]
    assert await acme.spend("e1", "45") == [ShortTransition("REACHED", "20", "60", "15", "e1")]
    assert await notified_kinds(other, low) == []


@own_server
async def test_plan_change_evaluates_every_affected_alert_in_one_call(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c1", "10")
    await acme.plan("silver", end=now + timedelta(days=30))
    days = "low_remaining_days_in_plan_reached {}"
    of_silver = await create(acme, days, "28", scope=SILVER)
    of_gold = await create(acme, days, "5", "2", scope=GOLD)
    low = await create(acme, "low_remaining_commit_balance_reached {}", "20", scope=GOLD)
    await acme.plan("gold", end=now + timedelta(days=4))
    assert [await notified_kinds(acme, one) for one in (of_silver, of_gold, low)] == [[], ["REACHED"], ["REACHED"]]
    # The threshold of silver would be reached in two days; now that of gold is.
    clock.set(now + timedelta(days=2))
    await acme.notified(3)
    assert [await notified_kinds(acme, one) for one in (of_silver, of_gold, low)] == [
        [],
        ["REACHED", "REACHED"],
        ["REACHED"],
    ]
    await acme.plan("")
    state = await caller.state(await create(acme, days, "5"))
    assert (state.no_data, state.status) == (True, OK)


@pytest.mark.parametrize(
    ("condition", "others"),
    [
        ("credit_balance_depleted {}", ['credit_balance_depleted { currency: "EUR" }']),
        ("credit_balance_recovered {}", ['credit_balance_recovered { currency: "EUR" }']),
        ("credit_balance_dropped {}", ['credit_balance_dropped { currency: "EUR" }', "credit_balance_depleted {}"]),
        (
            'license_balance_threshold_reached { license_type: "pro" }',
            ['license_balance_threshold_reached { license_type: "team" }'],
        ),
    ],
)
async def test_customer_has_one_alert_of_each_type_and_unit(
    caller: Caller, condition: str, others: list[str]
) -> None:
    def levels(text: str) -> list[str]:
        return [] if "depleted" in text or "recovered" in text else ["50"]

    first = await caller.create_only(written(condition, *levels(condition), scope=ACME))
    for other in others:
        await caller.create_only(written(other, *levels(other), scope=ACME))
    await caller.create_only(written(condition, *levels(condition), scope='customer { customer_id: "other" }'))
    # Unset currency means USD; an alert that differs only in thresholds is a duplicate.
    again = written(condition.replace("{}", '{ currency: "USD" }'), *map("{}1".format, levels(condition)), scope=ACME)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.create_only(again)
    code, reason, _ = explained(status_of(refused.value))
    assert (code, reason) == ("ALREADY_EXISTS", "ALERT_EXISTS")
    assert first.alert_id in (refused.value.details() or "")
    await caller.archive(first.alert_id)
    await caller.create_only(written(condition, *levels(condition), scope=ACME))
