"""Usage that nothing was reserved for: it moves the meters of enforced limits, and is never refused."""

import asyncio
from datetime import timedelta

from engine.ingest.batches import Outcome
from evaluator.enforcement import decisions
from evaluator.enforcement.reservations import ReservationState
from evaluator.events import SettlingEvent
from generated.tidemark.v1 import customer_pb2
from runtime.clock import ManualClock
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, Sender, meters, put_limit, usage_event
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.voiding import void

CALLS = "acme", "usage/calls", "BILLING_PERIOD"
MONEY = "acme", "cost/USD", "BILLING_PERIOD"


def over(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(one.limit.limit_id, str(one.counted), str(one.remaining)) for one in outcome.over_limits]


@shares_server
async def test_usage_moves_meters_and_says_which_limits_it_is_over(
    caller: Caller, gateway: Gateway, sender: Sender
) -> None:
    await put_limit(caller, "10")
    await put_limit(caller, "5", "money", currency="USD")
    assert over(await sender.send(usage_event("e1", "6"))) == []
    first, second = await sender.together(
        [usage_event("e2", "6", cost="5"), usage_event("e3", "1", customer="other")],
        [usage_event("e4", "1", cost="1"), usage_event("e5", "1")],
    )
    assert over(first) == [("limit", "14", "-4"), ("money", "6", "-1")]
    assert over(second) == over(first)
    assert first.accepted + second.accepted == 4
    assert await meters(caller) == {CALLS: ("14", "0"), MONEY: ("6", "0")}
    denied = await gateway.reserve("r", "1")
    assert denied.decision is not None
    assert denied.decision.is_denied


@shares_server
async def test_duplicates_and_corrections(caller: Caller, sender: Sender) -> None:
    await put_limit(caller, "10")
    await sender.send(usage_event("e1", "6"))
    await sender.send(usage_event("e1", "6"), usage_event("e2", "-2"))
    assert (await meters(caller))[CALLS] == ("4", "0")


@shares_server
async def test_voided_usage_leaves_meters(caller: Caller, sender: Sender, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    await sender.send(usage_event("e1", "6"), usage_event("e2", "3", cost="1"))
    await void(caller, "e1", "unknown")
    assert (await meters(caller))[CALLS] == ("3", "0")
    assert (await gateway.check("7")).outcome is decisions.Outcome.ALLOWED


@shares_server
async def test_usage_counts_in_ancestors(caller: Caller, sender: Sender, gateway: Gateway) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="org"))
    await caller.put_customer(customer_pb2.Customer(customer_id="team", parent_customer_id="org"))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="team"))
    await sender.send(usage_event("before", "3"), usage_event("of-team", "2", customer="team"))
    await put_limit(caller, "10", customer="org")
    await sender.send(usage_event("e1", "1"), usage_event("e2", "1", customer="team"))
    assert (await meters(caller))["org", "usage/calls", "BILLING_PERIOD"] == ("7", "0")
    await void(caller, "e1")
    assert (await meters(caller))["org", "usage/calls", "BILLING_PERIOD"] == ("6", "0")
    assert (await gateway.check("5")).outcome is decisions.Outcome.DENIED


@shares_server
async def test_an_event_settles_a_reservation_with_its_own_amounts(
    caller: Caller, sender: Sender, gateway: Gateway
) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("r1", "8")
    await gateway.reserve("r2", "2")
    event = SettlingEvent.of(usage_event("e1", "3"), "r1")
    assert (await sender.send(event)).accepted == 1
    assert (await sender.send(event)).duplicates == [0]
    await sender.send(SettlingEvent.of(usage_event("e2", "1"), "unknown"))
    assert (await meters(caller))[CALLS] == ("4", "2")
    again = await gateway.settle("r1", "3")
    assert again.reservation is not None
    assert again.reservation.state is ReservationState.SETTLED
    await sender.send(SettlingEvent.of(usage_event("e3", "1"), "r1"))  # it has ended: plain usage
    assert (await meters(caller))[CALLS] == ("5", "2")


@shares_server
async def test_an_event_settles_a_reservation_that_no_limit_covers(
    caller: Caller, sender: Sender, gateway: Gateway
) -> None:
    await gateway.reserve("r1", "8")
    await sender.send(SettlingEvent.of(usage_event("e1", "3"), "r1"))
    answer = await gateway.settle("r1", "3")
    assert answer.reservation is not None
    assert answer.reservation.state is ReservationState.SETTLED
    assert await caller.event_count() == 1


@shares_server
async def test_a_limit_that_comes_back_counts_what_it_missed(caller: Caller, sender: Sender) -> None:
    await put_limit(caller, "10")
    await sender.send(usage_event("e1", "1"))
    await put_limit(caller, "")
    await sender.send(usage_event("e2", "2"))
    await put_limit(caller, "10")
    await sender.send(usage_event("e3", "4"))
    assert (await meters(caller))[CALLS] == ("7", "0")


async def test_a_rolling_window_forgets_minute_by_minute(
    caller: Caller, sender: Sender, gateway: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10", window={"rolling": {"duration": {"seconds": 600}}})
    rolling = "acme", "usage/calls", "ROLLING"
    await sender.send(usage_event("e0", "4", at=NOON - timedelta(minutes=5)))
    clock.advance(timedelta(minutes=1))
    await sender.send(usage_event("e1", "3", at=clock.now()))
    await gateway.reserve("r", "1")
    clock.advance(timedelta(minutes=1))
    await gateway.settle("r", "2")
    assert (await meters(caller))[rolling] == ("9", "0")
    denied = await gateway.check("4")
    assert denied.limit is not None
    # e0 is of 11:55; the window of ten minutes begins after that minute at 12:06.
    assert denied.limit.reset_time == NOON + timedelta(minutes=6)
    assert denied.retry_after == timedelta(minutes=4)
    assert (await gateway.check("6")).limit is not None
    denied = await gateway.check("6")
    assert denied.limit is not None
    # Of 12:01, with the settlement of a reservation that was made then.
    assert denied.limit.reset_time == NOON + timedelta(minutes=12)
    never = await gateway.check("11")
    assert never.limit is not None
    assert (never.limit.reset_time, never.retry_after) == (None, None)
    clock.advance(timedelta(minutes=4, seconds=-1))
    assert (await gateway.check("4")).outcome is decisions.Outcome.DENIED
    clock.advance(timedelta(seconds=1))
    assert (await gateway.check("4")).outcome is decisions.Outcome.ALLOWED
    clock.advance(timedelta(minutes=6))
    await sender.send(usage_event("e2", "1", at=clock.now()))
    assert (await meters(caller))[rolling] == ("1", "0")
    [[minutes]] = await caller.rows("SELECT count(*) FROM meter_minute WHERE organization_id = %(organization_id)s")
    assert minutes == 1


async def test_a_rolling_limit_is_not_passed_within_its_duration(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    await put_limit(caller, "10", window={"rolling": {"duration": {"seconds": 60}}})
    clock.advance(timedelta(seconds=59, microseconds=999_999))
    await gateway.reserve("a", "6")
    await gateway.settle("a", "6")
    clock.advance(timedelta(microseconds=1))
    assert (await gateway.check("5")).outcome is decisions.Outcome.DENIED
    clock.advance(timedelta(minutes=1))
    assert (await gateway.check("10")).outcome is decisions.Outcome.ALLOWED


@shares_server
async def test_usage_and_reservations_of_one_customer_at_once(
    caller: Caller, sender: Sender, gateway: Gateway, other: Gateway
) -> None:
    await put_limit(caller, "50")

    async def reserve(number: int) -> int:
        answer = await (gateway, other)[number % 2].reserve(f"r{number}", "1")
        assert answer.decision is not None
        if answer.decision.is_denied:
            return 0
        await (other, gateway)[number % 2].settle(f"r{number}")
        return 1

    sent = [sender.send(usage_event(f"e{number}", "1")) for number in range(20)]
    admitted = await asyncio.gather(*[reserve(number) for number in range(60)], *sent)
    count = sum(one for one in admitted if isinstance(one, int))
    assert count >= 30
    assert (await meters(caller))[CALLS] == (str(count + 20), "0")
    assert await caller.event_count() == count + 20
