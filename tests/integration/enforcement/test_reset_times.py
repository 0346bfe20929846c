"""When a limit gives back what was used, and when a new try may fit."""

from datetime import timedelta
from decimal import Decimal

from evaluator.enforcement.decisions import Decision, Outcome, OveragePolicy
from evaluator.enforcement.reservations import GRACE, ReservationState
from runtime.clock import ManualClock
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, put_limit, reserve, settle
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller

CAPPED = Outcome.CAPPED


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
