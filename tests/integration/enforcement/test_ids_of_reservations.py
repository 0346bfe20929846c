"""An id belongs to one reservation or event: other content, taken ids, and repeated requests."""

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
)
from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.reservations import ReservationState
from tests.support.balances.holder import Holder
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, outcomes, put_limit, reserve, settle, shown
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.voiding import void

ALLOWED, DENIED = Outcome.ALLOWED, Outcome.DENIED


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
