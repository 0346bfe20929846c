"""Reservations: what they hold, and what settling, releasing and extending them does."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.enforcement.requests import (
    ReservationEnded,
    ReservationNotFound,
    ReservationWithoutCost,
    UsageTooOld,
)
from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.reservations import GRACE, ReservationState
from runtime.clock import ManualClock
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, outcomes, put_limit, reserve, settle, shown
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller

ALLOWED, DENIED = Outcome.ALLOWED, Outcome.DENIED


@shares_server
async def test_twenty_holds_of_75_on_500_admit_six(caller: Caller, gateway: Gateway, other: Gateway) -> None:
    await put_limit(caller, "500")
    asked = [(gateway, other)[number % 2].reserve(f"r{number}", "75") for number in range(20)]
    answers = await asyncio.gather(*asked)
    assert sorted(outcomes(answers)) == [ALLOWED] * 6 + [DENIED] * 14
    assert await shown(caller) == ("0", "450")
    [refusal] = {answer.decision.limit for answer in answers if answer.decision and answer.decision.is_denied}
    assert refusal is not None
    assert (refusal.limit.limit_id, refusal.remaining, refusal.held) == ("limit", Decimal(50), Decimal(450))


@shares_server
async def test_two_holds_on_the_last_unit_admit_one(caller: Caller, gateway: Gateway, other: Gateway) -> None:
    await put_limit(caller, "1")
    answers = await asyncio.gather(gateway.reserve("a"), other.reserve("b"))
    assert sorted(outcomes(answers)) == [ALLOWED, DENIED]


@shares_server
async def test_an_unknown_customer_and_metric_come_many_at_once(
    caller: Caller, gateway: Gateway, other: Gateway
) -> None:
    await put_limit(caller, "100", plan="free", metric="new")
    asked = [
        (gateway, other)[number % 2].reserve(f"r{number}", metric="new", customer="unknown") for number in range(20)
    ]
    assert outcomes(await asyncio.gather(*asked)) == [ALLOWED] * 20
    [[customers]] = await caller.rows(
        "SELECT count(*) FROM customer WHERE organization_id = %(organization_id)s AND customer_id = 'unknown'"
    )
    assert customers == 1


@shares_server
async def test_a_settlement_counts_less_more_or_what_was_granted(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "100")
    for name in ("less", "same", "more"):
        await gateway.reserve(name, "20")
    assert await shown(caller) == ("0", "60")
    await gateway.settle("less", "5")
    await gateway.settle("same")
    answer = await gateway.settle("more", "95")
    assert answer.decision is not None
    assert answer.decision.outcome is ALLOWED
    assert [one.limit.limit_id for one in answer.decision.over] == ["limit"]
    assert await shown(caller) == ("120", "0")
    events = await caller.rows(
        "SELECT event_id, quantity::text FROM event WHERE organization_id = %(organization_id)s ORDER BY event_id"
    )
    assert events == [("less", "5"), ("more", "95"), ("same", "20")]


@shares_server
async def test_ended_reservations(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("settled", "1")
    await gateway.settle("settled")
    await gateway.reserve("released", "1")
    await gateway.release("released")
    await gateway.reserve("denied", "100")
    again = await gateway.release("released")
    assert again.reservation is not None
    assert again.reservation.state is ReservationState.RELEASED
    for name, state in (
        ("settled", ReservationState.SETTLED),
        ("released", ReservationState.RELEASED),
        ("denied", ReservationState.DENIED),
    ):
        with pytest.raises(ReservationEnded) as ended:
            await gateway.settle(name, "3")
        assert ended.value.state is state
        with pytest.raises(ReservationEnded):
            await gateway.extend(name, 5)
        if name != "released":
            with pytest.raises(ReservationEnded):
                await gateway.release(name)
    for request in (gateway.settle("unknown"), gateway.release("unknown"), gateway.extend("unknown", 5)):
        with pytest.raises(ReservationNotFound):
            await request
    assert await shown(caller) == ("1", "0")


async def test_a_settlement_within_the_grace_is_in_time_and_later_one_is_late(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("in-time", "4", seconds=10)
    await gateway.reserve("late", "4", seconds=10)
    clock.advance(timedelta(seconds=10) + GRACE - timedelta(microseconds=1))
    answer = await gateway.settle("in-time")
    assert answer.reservation is not None
    assert (answer.reservation.state, answer.reservation.late) == (ReservationState.SETTLED, False)
    clock.advance(timedelta(microseconds=1))
    answer = await gateway.settle("late", "8")
    assert answer.reservation is not None
    assert answer.decision is not None
    assert (answer.reservation.state, answer.reservation.late) == (ReservationState.EXPIRED, True)
    assert [one.limit.limit_id for one in answer.decision.over] == ["limit"]
    again = await gateway.settle("late", "8")
    assert (again.decision, again.reservation) == (answer.decision, answer.reservation)
    with pytest.raises(ReservationEnded):
        await gateway.settle("late", "7")
    assert await shown(caller) == ("12", "0")


async def test_an_extension_keeps_a_reservation(caller: Caller, gateway: Gateway, clock: ManualClock) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("a", "4", seconds=10)
    clock.advance(timedelta(seconds=9))
    await gateway.extend("a", 10)
    clock.advance(timedelta(seconds=9))
    answer = await gateway.settle("a")
    assert answer.reservation is not None
    assert answer.reservation.state is ReservationState.SETTLED


async def test_a_hold_belongs_to_the_period_in_which_it_was_made(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10", window={"calendar": {"unit": "CALENDAR_UNIT_HOUR"}})
    await gateway.reserve("a", "8", seconds=7200)
    clock.advance(timedelta(hours=1))
    await gateway.reserve("b", "10")
    await gateway.settle("a", "7")
    rows = await caller.rows(
        "SELECT counted::text, held::text FROM meter WHERE organization_id = %(organization_id)s ORDER BY window_end"
    )
    assert rows == [("7", "0"), ("0", "10")]
    [[event_time]] = await caller.rows("SELECT event_time FROM event WHERE organization_id = %(organization_id)s")
    assert event_time == NOON


@shares_server
async def test_a_new_meter_counts_what_is_stored(caller: Caller, gateway: Gateway) -> None:
    await caller.send(caller.event("e1", "3", cost="2", currency="USD"), caller.event("e2", "4", model="x"))
    await caller.send(caller.event("e3", "50", at=NOON - timedelta(days=31)))
    await put_limit(caller, "10")
    await put_limit(caller, "5", "of-models", groups=[{"key": "model"}])
    await put_limit(caller, "5", "money", currency="USD")
    answer = await gateway.reserve("a", "1", cost="3", model="x")
    assert answer.decision is not None
    assert answer.decision.outcome is ALLOWED
    stored = await caller.rows(
        "SELECT unit, group_values, counted::text, held::text FROM meter"
        " WHERE organization_id = %(organization_id)s ORDER BY 1, 2"
    )
    assert stored == [
        ("cost/USD", {}, "2", "3"),
        ("usage/calls", {}, "7", "1"),
        ("usage/calls", {"model": "x"}, "4", "1"),
    ]


@shares_server
async def test_requests_that_cannot_be_decided(caller: Caller, gateway: Gateway) -> None:
    await gateway.reserve("a", "2")
    with pytest.raises(ReservationWithoutCost):
        await gateway.settle("a", "2", "1")
    with pytest.raises(UsageTooOld):
        await gateway.reserve("b", at=NOON - timedelta(days=200))


@shares_server
async def test_requests_of_one_call_see_each_other(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    answers = await gateway.ask(
        reserve("a", "8"),
        reserve("b", "3"),
        settle("a", "7"),
        reserve("c", "3"),
        settle("a", "7"),
        reserve("d", "1"),
    )
    assert outcomes(answers) == [ALLOWED, DENIED, ALLOWED, ALLOWED, ALLOWED, DENIED]
    assert await shown(caller) == ("7", "3")


@shares_server
async def test_amounts_stay_exact(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1")
    third = "0.333333333333333333"
    for name in ("a", "b", "c"):
        await gateway.reserve(name, third)
    capped = await gateway.reserve("d", "1", policy=OveragePolicy.CAP)
    assert capped.decision is not None
    assert capped.decision.granted_quantity == Decimal("0.000000000000000001")
    assert await shown(caller) == ("0", "1")
