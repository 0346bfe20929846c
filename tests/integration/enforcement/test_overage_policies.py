"""What happens to what does not fit: policies of requests and settlements, soft and lowered limits."""

from dataclasses import replace
from decimal import Decimal

from evaluator.enforcement.decisions import Outcome, OveragePolicy, Reason
from evaluator.enforcement.reservations import ReservationState
from generated.tidemark.v1 import metric_pb2
from tests.support.enforcement.gateway import SOFT, Gateway, outcomes, put_limit, shown
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller

ALLOWED, CAPPED, DENIED = Outcome.ALLOWED, Outcome.CAPPED, Outcome.DENIED


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
