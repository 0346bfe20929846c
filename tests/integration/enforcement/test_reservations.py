"""Reservations: what they hold, and what settling, releasing and extending them does."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.enforcement.requests import (
    Decided,
    EventConflict,
    Extend,
    Release,
    Request,
    ReservationConflict,
    ReservationEnded,
    ReservationNotFound,
    ReservationWithoutCost,
    UsageTooOld,
)
from evaluator.enforcement.decisions import Decision, Outcome, OveragePolicy, Reason
from evaluator.enforcement.reservations import GRACE, ReservationState
from generated.tidemark.v1 import customer_pb2, metric_pb2
from runtime.clock import ManualClock
from tests.support.balances.holder import Holder
from tests.support.databases import NOON
from tests.support.enforcement.gateway import SOFT, Gateway, gateway_of, meters, put_limit, reserve, settle
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.voiding import void

ALLOWED, CAPPED, DENIED = Outcome.ALLOWED, Outcome.CAPPED, Outcome.DENIED
CALLS = "acme", "usage/calls", "BILLING_PERIOD"


def outcomes(answers: Sequence[Decided]) -> list[Outcome]:
    return [answer.decision.outcome for answer in answers if answer.decision is not None]


async def shown(caller: Caller) -> tuple[str, str]:
    """Counted and held of acme's calls."""
    return (await meters(caller))[CALLS]


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
async def test_a_request_is_answered_again_as_the_first_time(
    caller: Caller, gateway: Gateway, other: Gateway
) -> None:
    await put_limit(caller, "10")
    first = await gateway.reserve("a", "8")
    assert await other.reserve("a", "8.0") == replace(first, replayed=True)
    denied = await gateway.reserve("b", "3")
    await gateway.release("a")
    again = await other.reserve("b", "3")
    assert again == replace(denied, replayed=True)
    assert again.reservation is not None
    assert again.reservation.state is ReservationState.DENIED
    assert (await gateway.reserve("c", "3")).decision is not None
    settled = await gateway.settle("c", "2")
    repeated = await other.settle("c", "2")
    assert (repeated.decision, repeated.reservation) == (settled.decision, settled.reservation)
    assert await shown(caller) == ("2", "0")
    assert await caller.event_count() == 1


@shares_server
async def test_other_content_is_a_conflict(caller: Caller, gateway: Gateway) -> None:
    await gateway.reserve("a", "8")
    for request in (
        reserve("a", "9"),
        reserve("a", "8", policy=OveragePolicy.CAP),
        reserve("a", "8", seconds=30),
        reserve("a", "8", cost="1"),
        reserve("a", "8", model="x"),
        reserve("a", "8", metric="other"),
        reserve("a", "8", at=NOON),
        reserve("a", "8", subscription="s"),
    ):
        with pytest.raises(ReservationConflict):
            await gateway.ask(request)
    await gateway.reserve("a", "9", customer="other")


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


@shares_server
async def test_policies_of_what_does_not_fit(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    await put_limit(caller, "4", "money", currency="USD")
    capped = await gateway.reserve("capped", "12", cost="6", policy=OveragePolicy.CAP)
    assert capped.decision is not None
    assert (capped.decision.outcome, capped.decision.reason) == (CAPPED, Reason.LIMIT)
    assert (capped.decision.granted_quantity, capped.decision.granted_cost) == (Decimal(8), Decimal(4))
    assert capped.decision.limit is not None
    assert capped.decision.limit.limit.limit_id == "money"
    denied = await gateway.reserve("denied", "3", policy=OveragePolicy.REJECT)
    assert denied.decision is not None
    assert denied.decision.outcome is DENIED
    over = await gateway.reserve("over", "3", policy=OveragePolicy.OVERFLOW)
    assert over.decision is not None
    assert over.decision.outcome is ALLOWED
    assert [one.limit.limit_id for one in over.decision.over] == ["limit"]
    assert await shown(caller) == ("0", "11")
    nothing = await gateway.reserve("nothing", "3", policy=OveragePolicy.CAP)
    assert nothing.decision is not None
    assert nothing.decision.outcome is DENIED


@shares_server
async def test_policies_of_settlements_that_are_too_large(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("reject", "4", policy=OveragePolicy.REJECT)
    refused = await gateway.settle("reject", "11")
    assert refused.decision is not None
    assert refused.reservation is not None
    assert (refused.decision.outcome, refused.reservation.state) == (DENIED, ReservationState.OPEN)
    assert await shown(caller) == ("0", "4")
    await gateway.settle("reject", "5")
    await gateway.reserve("cap", "3", policy=OveragePolicy.CAP)
    capped = await gateway.settle("cap", "7")
    assert capped.decision is not None
    assert capped.reservation is not None
    assert (capped.decision.outcome, capped.reservation.settled_quantity) == (CAPPED, Decimal(5))
    again = await gateway.settle("cap", "7")
    assert (again.decision, again.reservation) == (capped.decision, capped.reservation)
    assert await shown(caller) == ("10", "0")


@shares_server
async def test_soft_limits_answer_and_count(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10", enforcement=SOFT)
    answer = await gateway.reserve("a", "11")
    assert answer.decision is not None
    assert answer.decision.outcome is ALLOWED
    assert [one.limit.limit_id for one in answer.decision.over] == ["limit"]
    assert replace(await gateway.reserve("a", "11"), replayed=False) == answer


@shares_server
async def test_a_lowered_limit_revokes_nothing(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("a", "8")
    await put_limit(caller, "5")
    answer = await gateway.reserve("b", "1")
    assert answer.decision is not None
    assert answer.decision.limit is not None
    assert (answer.decision.outcome, answer.decision.limit.remaining) == (DENIED, Decimal(-3))
    await gateway.settle("a")
    assert await shown(caller) == ("8", "0")


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
async def test_parents_and_children_are_charged_together(caller: Caller, gateway: Gateway, other: Gateway) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="org"))
    await caller.put_customer(customer_pb2.Customer(customer_id="team", parent_customer_id="org"))
    for name in ("ann", "bob"):
        await caller.put_customer(customer_pb2.Customer(customer_id=name, parent_customer_id="team"))
    await put_limit(caller, "10", "of-org", customer="org")
    await put_limit(caller, "6", "of-ann", customer="ann")
    asked = [
        (gateway, other)[number % 2].reserve(f"r{number}", "2", customer=("ann", "bob")[number // 2 % 2])
        for number in range(20)
    ]
    answers = await asyncio.gather(*asked)
    assert outcomes(answers).count(ALLOWED) == 5
    stored = await meters(caller)
    assert stored["org", "usage/calls", "BILLING_PERIOD"] == ("0", "10")
    for answer in answers:
        one = answer.reservation
        if one is not None and one.state is ReservationState.OPEN:
            await gateway.settle(one.reservation_id, "1", customer=one.customer_id)
    stored = await meters(caller)
    assert stored["org", "usage/calls", "BILLING_PERIOD"] == ("5", "0")


@shares_server
async def test_a_reservation_whose_id_an_event_has_taken_is_released_by_its_settlement(
    caller: Caller, gateway: Gateway
) -> None:
    """It could never be settled. Its answer stays the same, also when the event is gone."""
    await put_limit(caller, "10")
    holder = Holder(caller, "acme")
    await holder.put("grant", "100")
    await gateway.reserve("a", "2", cost="5", currency="USD")
    await gateway.reserve("b", "3")
    await caller.send(caller.event("a", "4"))
    answers = await gateway.pipeline.submit(gateway.organization, [settle("a"), settle("b"), reserve("c", "3")])
    assert isinstance(answers[0], EventConflict)
    assert isinstance(answers[1], Decided)
    assert outcomes([one for one in answers if isinstance(one, Decided)]) == [ALLOWED, ALLOWED]
    assert await shown(caller) == ("7", "3")
    assert {one.held for one in (await holder.segments()).values()} <= {"", "0"}
    for _ in range(2):
        with pytest.raises(EventConflict):
            await gateway.settle("a")
        await void_if_stored(caller, "a")
    released = await gateway.release("a")
    assert (released.reservation.state, released.replayed) == (ReservationState.RELEASED, True)


async def void_if_stored(caller: Caller, event_id: str) -> None:
    """Voids an event of acme unless it was."""
    if await caller.rows(
        "SELECT 1 FROM event WHERE organization_id = %(organization_id)s AND event_id = %(id)s", id=event_id
    ):
        await void(caller, event_id)


@shares_server
async def test_the_id_of_an_event_is_refused_for_a_reservation(caller: Caller, gateway: Gateway) -> None:
    """Its usage could never be counted. Events of other months and customers do not matter."""
    await put_limit(caller, "10")
    await caller.send(
        caller.event("a", "3"), caller.event("b", "1", "globex"), caller.event("c", "1", at=NOON - timedelta(days=20))
    )
    answers = await gateway.pipeline.submit(gateway.organization, [reserve(name, "2") for name in "abc"])
    assert isinstance(answers[0], EventConflict)
    assert outcomes([one for one in answers if isinstance(one, Decided)]) == [ALLOWED, ALLOWED]
    state = (await gateway.check()).limit
    assert state is not None
    assert (state.counted, state.held) == (Decimal(3), Decimal(4))
    await gateway.settle("b")
    again = await gateway.reserve("b", "2")
    assert (again.reservation.state, again.replayed) == (ReservationState.SETTLED, True)


@shares_server
async def test_answers_say_that_they_are_replayed(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    asked: list[Request] = [
        reserve("a", "2"),
        reserve("denied", "11"),
        settle("a", "1"),
        reserve("b", "2"),
        Extend("acme", "b", expire_time=NOON + timedelta(hours=1)),
        Release("acme", "b"),
    ]
    assert [one.replayed for one in await gateway.ask(*asked)] == [False] * 6
    assert [one.replayed for one in await gateway.ask(*asked[:4], asked[5])] == [True] * 5
    await gateway.ask(reserve("c"), Extend("acme", "c", expire_time=NOON + timedelta(hours=1)))
    answers = await gateway.ask(
        Extend("acme", "c", expire_time=NOON + timedelta(hours=1)), Extend("acme", "c", ttl=timedelta(hours=2))
    )
    assert [one.replayed for one in answers] == [True, False]


def resets(decision: Decision | None) -> tuple[str, timedelta | None, timedelta | None]:
    """The limit of a decision, when it resets, from noon on, and retry_after."""
    assert decision is not None
    assert decision.limit is not None
    time = decision.limit.reset_time
    return decision.limit.limit.limit_id, None if time is None else time - NOON, decision.retry_after


DAY = timedelta(hours=12)  # from noon to the end of the day


@shares_server
async def test_reset_time_and_retry_after_are_unset_where_waiting_does_not_help(
    caller: Caller, gateway: Gateway
) -> None:
    await put_limit(caller, "10", "day", window={"calendar": {"unit": "CALENDAR_UNIT_DAY"}})
    await caller.send(caller.event("e1", "4"))
    refused = [
        await gateway.reserve("a", "7"),  # fits tomorrow
        await gateway.reserve("b", "11"),  # never fits
        await gateway.reserve("c", "7", at=NOON),  # counts today at any time
    ]
    assert [resets(one.decision) for one in refused] == [
        ("day", DAY, DAY),
        ("day", None, None),
        ("day", None, None),
    ]
    assert resets(await gateway.check("11")) == ("day", None, None)
    assert resets(await gateway.check("11", policy=OveragePolicy.CAP)) == ("day", None, None)
    assert resets(await gateway.check("7", at=NOON)) == ("day", None, None)
    await gateway.reserve("held", "5")
    second = timedelta(seconds=1)
    assert resets(await gateway.check("5", at=NOON)) == ("day", None, second)
    assert resets(await gateway.check("5")) == ("day", DAY, second)


@shares_server
async def test_a_settlement_that_is_refused_waits_only_for_what_others_hold(caller: Caller, gateway: Gateway) -> None:
    """Its usage counts in the window of the reservation, and what that holds itself is never in its way."""
    await put_limit(caller, "10", "day", window={"calendar": {"unit": "CALENDAR_UNIT_DAY"}})
    await gateway.reserve("a", "6", policy=OveragePolicy.REJECT)
    assert resets((await gateway.settle("a", "11")).decision) == ("day", None, None)
    await gateway.reserve("other", "3")
    assert resets((await gateway.settle("a", "8")).decision) == ("day", None, timedelta(seconds=1))
    await gateway.settle("other")
    assert resets((await gateway.settle("a", "8")).decision) == ("day", None, None)
    assert (await gateway.settle("a", "7")).reservation.state is ReservationState.SETTLED


async def test_a_rolling_limit_that_capped_a_settlement_says_when_it_resets(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10", window={"rolling": {"duration": {"seconds": 3600}}})
    await gateway.ask(reserve("a", "4"), settle("a"))
    clock.advance(timedelta(minutes=5))
    await gateway.ask(*[reserve(name, "2", policy=OveragePolicy.CAP) for name in ("b", "c")])
    left = timedelta(minutes=61)  # the minute in which the window begins counts as a whole
    first = await gateway.settle("b", "7")
    assert first.decision is not None
    assert (first.decision.outcome, first.decision.granted_quantity) == (CAPPED, Decimal(4))
    assert resets(first.decision) == ("limit", left, None)
    again = await gateway.settle("b", "7")
    assert (again.decision, again.replayed) == (first.decision, True)
    reserved = await gateway.reserve("d", "3", policy=OveragePolicy.REJECT)
    assert resets(reserved.decision) == ("limit", left, left - timedelta(minutes=5))
    assert (await gateway.reserve("d", "3", policy=OveragePolicy.REJECT)).decision == reserved.decision


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


async def test_a_request_is_answered_again_before_its_expiry_in_another_window(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    """The meter that it holds a part of is not one that the same usage would move now."""
    await put_limit(caller, "10", window={"calendar": {"unit": "CALENDAR_UNIT_HOUR"}})
    request = reserve("a", "3", seconds=3_600)
    [first] = await gateway.ask(request)
    clock.advance(timedelta(hours=1) + GRACE)
    [again] = await gateway.ask(request)
    assert again.decision == first.decision


@shares_server
async def test_a_customer_leaves_a_parent_with_balances_while_it_holds(caller: Caller, gateway: Gateway) -> None:
    """A server that has never known the former parent settles the reservation."""
    for parent in ("former", "next"):
        await caller.put_customer(customer_pb2.Customer(customer_id=parent))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="former"))
    await put_limit(caller, "100", customer="former")
    for customer in ("former", "acme"):
        await Holder(caller, customer).put(f"of-{customer}", "100")
    await gateway.reserve("a", "3", cost="1", currency="USD")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="next"))
    async with gateway_of(caller) as another:
        assert outcomes([await another.settle("a")]) == [ALLOWED]
    assert (await meters(caller))["former", "usage/calls", "BILLING_PERIOD"] == ("0", "0")


@shares_server
async def test_an_event_of_a_count_is_not_divided_where_its_cost_does_not_fit(
    caller: Caller, gateway: Gateway
) -> None:
    await caller.put_metric("calls", metric_pb2.AGGREGATION_COUNT)
    await put_limit(caller, "1.5")
    await put_limit(caller, "5", "money", currency="USD")
    await gateway.reserve("first", "7")
    cap = OveragePolicy.CAP
    assert outcomes([await gateway.reserve("a", "7", cost="20", currency="USD", policy=cap)]) == [DENIED]
    assert await shown(caller) == ("0", "1")
    await put_limit(caller, "2")
    await gateway.reserve("b", "7", cost="4", currency="USD", policy=cap)
    answer = await gateway.settle("b", "7", "6")
    assert answer.decision is not None
    assert (answer.decision.outcome, answer.decision.granted_cost) == (CAPPED, Decimal(5))
    assert await shown(caller) == ("1", "1")


async def test_reset_times_of_many_amounts_in_a_rolling_window(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10", window={"rolling": {"duration": {"seconds": 3600}}})
    start = clock.now()
    for number in range(5):
        await gateway.ask(reserve(f"r{number}", "2"), settle(f"r{number}"))
        clock.advance(timedelta(minutes=1))
    answers = await gateway.ask(*[reserve(f"d{amount}", amount) for amount in ("3", "1", "10", "2", "9", "11")])
    states = [answer.decision.limit for answer in answers if answer.decision is not None]
    minutes = [
        None if one is None or one.reset_time is None else (one.reset_time - start) // timedelta(minutes=1) - 61
        for one in states
    ]
    assert minutes == [1, 0, 4, 0, 4, None]


@shares_server
async def test_a_customer_keeps_its_order_while_a_server_learns_who_stands_above_it(caller: Caller) -> None:
    """Each customer is unknown at first, so its requests go to another writer than those of its parent."""
    customers = [f"user{number}" for number in range(8)]
    for customer in customers:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer, parent_customer_id="parent"))
    await put_limit(caller, "100", customer="parent")
    async with gateway_of(caller, writers=7) as gateway:
        rules = gateway.pipeline._rules.of(gateway.organization.organization_id)
        for customer in customers:
            first = asyncio.create_task(gateway.reserve("a", customer=customer))
            while customer not in rules.cached.known and not first.done():  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0)
            answers = await asyncio.gather(first, gateway.settle("a", customer=customer))
            assert outcomes(answers) == [ALLOWED, ALLOWED]


@shares_server
async def test_limits_above_count_the_usage_of_a_customer_that_has_moved(caller: Caller, gateway: Gateway) -> None:
    """What is voided afterwards leaves the parent that counts it: no limit has more room than its amount."""
    for parent in ("former", "next"):
        await caller.put_customer(customer_pb2.Customer(customer_id=parent, parent_customer_id=f"above-{parent}"))
        await put_limit(caller, "100", parent, customer=parent)
        await put_limit(caller, "200", f"above-{parent}", customer=f"above-{parent}")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="former"))
    await gateway.reserve("a", "50")
    await gateway.settle("a")
    await gateway.reserve("b", "1", customer="next")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="next"))
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for customer in ("former", "next", "above-former", "above-next"):
        decision = await gateway.check("1000", customer=customer, policy=OveragePolicy.OVERFLOW)
        found |= {one.limit.limit_id: (one.counted, one.held) for one in decision.over}
    nothing, all_of_it = (Decimal(0), Decimal(0)), (Decimal(50), Decimal(1))
    assert found == {"former": nothing, "above-former": nothing, "next": all_of_it, "above-next": all_of_it}
    await void(caller, "a")
    assert outcomes([await gateway.reserve("c", "100", customer="next")]) == [DENIED]
    assert outcomes([await gateway.reserve("d", "99", customer="next")]) == [ALLOWED]
