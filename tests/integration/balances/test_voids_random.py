"""Random usage and voids: the service is as if the voided events had never come.

Each example is two organizations with the same balances and alerts. One gets all events and the voids, the other gets
only the events that are left.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.tidemark.v1 import condition_pb2
from runtime.clock import ManualClock
from tests.support.balances.holder import SEAT, Holder, alert
from tests.support.usage.caller import Caller, spend_alert
from tests.support.usage.organizations import organization
from tests.support.usage.voiding import outcomes, void

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "15"))

COSTS = ["1", "2", "3.5", "5", "8", "13", "-1", "-4", "0.000000000000000001"]


@dataclass(frozen=True)
class Send:
    """An event. again: instead of a new id, that of the voided event so many voids ago."""

    cost: str
    metric: str
    seat: str
    hours_ago: int
    again: int


@dataclass(frozen=True)
class Void:
    """Voids events, counted from the last one that was sent."""

    backs: tuple[int, ...]


sends = st.builds(
    Send,
    st.sampled_from(COSTS),
    st.sampled_from(["calls", "bytes"]),
    st.sampled_from(["", "1", "2"]),
    st.sampled_from([0, 0, 1, 30]),
    st.sampled_from([0, 0, 0, 1, 2]),
)
voids = st.builds(Void, st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple))
stories = st.lists(st.one_of(sends, sends, sends, voids), min_size=3, max_size=16)


class Holdings:
    """An organization with balances and alerts, to which events are sent."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.holder = Holder(caller)

    @classmethod
    async def begin(cls, caller: Caller, clock: ManualClock, *, restricted: bool) -> "Holdings":
        """restricted: whether some balances are only for some events."""
        name, api_key = await organization(caller.database_url, clock)
        side = cls(Caller(caller.server, clock, caller.database_url, name, api_key))
        holder, start = side.holder, clock.now() - timedelta(days=9)
        await holder.put("b1", spans=[("6", start, None), ("3", start, None)], priority=1)
        await holder.put("b2", "9", spans=[("9", start, None)], priority=2, allow_overage=not restricted)
        if restricted:
            day = timedelta(hours=24)
            await holder.put("day", spans=[("4", start, clock.now() - day), ("4", clock.now() - day, None)])
            await holder.put("bytes", spans=[("4", start, None)], priority=1, draw_down_metric_ids=["bytes"])
            await holder.put("seat", kind=SEAT, seat=("seat", "1"), spans=[("5", start, None)])
        low = condition_pb2.LowRemainingCommitBalanceReachedCondition()
        await side.caller.create(alert("0", "5", "14", low_remaining_commit_balance_reached=low))
        await side.caller.create(spend_alert("3", "10", "25"))
        return side

    async def send(self, event_id: str, item: Send) -> int:
        """Sends an event; returns how many were accepted."""
        at = self.caller.clock.now() - timedelta(hours=item.hours_ago)
        properties = {"seat": item.seat} if item.seat else {}
        event = self.caller.event(event_id, cost=item.cost, metric=item.metric, at=at, **properties)
        return (await self.caller.send(event)).accepted

    async def gauges(self) -> list[Any]:
        """The values of the gauges, and the thresholds that are reached on them."""
        rows = await self.caller.rows(
            "SELECT g.measure, g.group_values, g.value, s.reached FROM gauge g"
            " LEFT JOIN alert_state s USING (organization_id, customer_id, gauge_id)"
            " WHERE g.organization_id = %(organization_id)s"
        )
        found = [(row[0], row[1], row[2], sorted(row[3] or ())) for row in rows]
        return sorted(one for one in found if one[2] or one[3] or one[0].startswith("balances"))

    async def amounts(self) -> dict[Any, Decimal]:
        """What remains of each segment, and each overage."""
        found: dict[Any, Decimal] = {
            one: Decimal(segment.remaining) for one, segment in (await self.holder.segments()).items()
        }
        return found | {unit: amount for unit, amount in (await self.holder.overage()).items() if amount}

    async def check_ledger(self) -> None:
        """The entries of each segment add up to what remains of it."""
        sums: dict[tuple[str, int], Decimal] = {}
        for entry in await self.holder.entries():
            key = entry.balance_id, entry.segment_number
            sums[key] = sums.get(key, Decimal(0)) + Decimal(entry.amount)
        segments = await self.holder.segments()
        assert sums == {key: Decimal(one.remaining) for key, one in segments.items()}
        assert all(Decimal(one.drawn) >= 0 for one in segments.values())


async def carry_out(voiding: Holdings, story: list[Send | Void]) -> dict[str, Send]:
    """Carries out a story; returns the events that are left, in the order in which they came."""
    left: dict[str, Send] = {}
    sent: list[str] = []
    voided: list[str] = []
    for item in story:
        if isinstance(item, Send):
            event_id = voided[-min(item.again, len(voided))] if item.again and voided else f"e{len(sent)}"
            sent.append(event_id)
            if event_id not in left:
                assert await voiding.send(event_id, item) == 1
                left[event_id] = item
        elif sent:
            chosen = [sent[-min(back, len(sent))] for back in item.backs]
            answer = outcomes(await void(voiding.caller, *chosen))
            for event_id, outcome in zip(chosen, answer, strict=True):
                assert (outcome == "VOIDED") is (left.pop(event_id, None) is not None)
                if outcome == "VOIDED":
                    voided.append(event_id)
    return left


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories)
async def test_balances_gauges_and_states_are_as_if_voided_events_had_never_come(
    caller: Caller, clock: ManualClock, story: list[Send | Void]
) -> None:
    voiding = await Holdings.begin(caller, clock, restricted=False)
    left = await carry_out(voiding, story)
    never = await Holdings.begin(caller, clock, restricted=False)
    for event_id, item in left.items():
        assert await never.send(event_id, item) == 1
    assert await voiding.amounts() == await never.amounts()
    assert await voiding.gauges() == await never.gauges()
    await voiding.check_ledger()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories)
async def test_balances_of_some_events_only_get_back_all_that_was_drawn(
    caller: Caller, clock: ManualClock, story: list[Send | Void]
) -> None:
    """The sum is exact. Where usage contends for segments, the order in which it came can divide it otherwise."""
    voiding = await Holdings.begin(caller, clock, restricted=True)
    left = await carry_out(voiding, story)
    amounts = await voiding.amounts()
    overage = amounts.pop("USD", Decimal(0))
    granted = Decimal(6 + 3 + 9 + 4 + 4 + 4 + 5)
    assert sum(amounts.values()) - overage == granted - sum(Decimal(item.cost) for item in left.values())
    await voiding.check_ledger()
    # Without anything to draw, everything is there again.
    if left:
        assert set(outcomes(await void(voiding.caller, *left))) == {"VOIDED"}
    amounts = await voiding.amounts()
    assert amounts.pop("USD", Decimal(0)) == 0
    assert sum(amounts.values()) == granted
