"""Random grants, usage, corrections and adjustments: the service does what the reference model says."""

import math
import os
from collections.abc import Awaitable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import grpc
from hypothesis import HealthCheck, given, settings

from evaluator.amounts import format_decimal
from generated.tidemark.v1 import (
    access_pb2,
    alert_pb2,
    balance_pb2,
    condition_pb2,
    filter_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.reference.balances import SegmentId, Unit
from tests.reference.facts import PERCENT_REMAINING, FactAlert, FactModel
from tests.reference.gauges import Event, Group
from tests.reference.thresholds import Transition
from tests.support.balances.holder import Holder, alert
from tests.support.balances.ledger_story import (
    CUSTOMERS,
    START,
    Adjust,
    Again,
    Commit,
    Create,
    New,
    Put,
    PutAgain,
    Void,
    Wait,
    stories,
)
from tests.support.balances.timing import timers_of, work_off
from tests.support.usage.caller import Caller
from tests.support.usage.organizations import organization
from tests.support.usage.words import decimal_of

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "25"))  # stories; hundreds take minutes

KINDS = {
    "COMMIT": balance_pb2.BALANCE_KIND_COMMIT,
    "CREDIT_GRANT": balance_pb2.BALANCE_KIND_CREDIT_GRANT,
    "SEAT_CREDIT": balance_pb2.BALANCE_KIND_SEAT_CREDIT,
}
REFUSED = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


class Run:
    """One story, carried out by the model and by the service alike."""

    def __init__(self, caller: Caller, clock: ManualClock, database: Database) -> None:
        self.caller = caller
        self.model = FactModel(clock.now())
        self.holders = {customer: Holder(caller, customer) for customer in CUSTOMERS}
        self._clock = clock
        self._timers, self._database = timers_of(database, clock), database
        self._sent: list[Event] = []
        self._puts: list[Put] = []
        self._alert_ids: dict[str, str] = {}
        self._backfilling: str | None = None
        self._adjustments = 0

    async def change(self, change: object) -> None:
        """Makes a change."""
        if not isinstance(change, Commit):
            await self._backfilled()
        match change:
            case Commit():
                await self._commit([self._event(item) for item in change.events])
                await self._backfilled()
            case Put():
                await self._put(change)
            case PutAgain() if self._puts:
                last = self._puts[-min(change.back, len(self._puts))]
                await self._put(replace(last, spans=change.of(last.spans)))
            case Adjust():
                await self._adjust(change)
            case Void():
                known = self.model.void(change.customer, change.name)
                await refused_unless(known, self.holders[change.customer].void(change.name))
            case Wait():
                self.model.wait_until(self.model.now + change.step)
                self._clock.set(self.model.now)
            case Create():
                await self._create(change)

    async def _put(self, put: Put) -> None:
        self._puts.append(put)
        terms = put.terms
        self.model.put(put.customer, terms, put.spans)
        await self.holders[put.customer].put(
            terms.balance_id,
            kind=KINDS[terms.kind],
            spans=[(text(amount), start, end) for amount, start, end in put.spans],
            currency=terms.unit[1] if terms.unit[0] == "cost" else "",
            metric=terms.unit[1] if terms.unit[0] == "usage" else "",
            seat=terms.seat,
            draw=terms.draws,
            priority=terms.priority,
            allow_overage=terms.overdraws,
            draw_down_metric_ids=sorted(terms.metrics),
        )

    async def _adjust(self, adjust: Adjust) -> None:
        self._adjustments += 1
        possible = self.model.adjust(adjust.customer, adjust.name, adjust.amount, adjust.place)
        adjusting = self.holders[adjust.customer].adjust(
            adjust.name, text(adjust.amount), f"a{self._adjustments}", adjust.place or 0
        )
        await refused_unless(possible, adjusting)

    async def _create(self, create: Create) -> None:
        name = f"alert-{len(self._alert_ids)}"
        one = replace(create.alert, name=name)
        created = await self.caller.create_only(message_of(one))
        self._alert_ids[name] = self._backfilling = created.alert_id
        self.model.create(one)
        if not create.hasty:
            await self._backfilled()

    async def _backfilled(self) -> None:
        if self._backfilling is not None:
            await self.caller.backfilled(self._backfilling)
            self._backfilling = None

    def _event(self, item: New | Again) -> Event:
        if isinstance(item, Again) and self._sent:
            return self._sent[-min(item.back, len(self._sent))]
        if isinstance(item, Again):
            item = New("ann", START - START, "bytes", Fraction(1), None, "USD", ())
        fields = {name: value for name, value in vars(item).items() if name != "after"}
        self._sent.append(Event(f"e{len(self._sent)}", time=self.model.now + item.after, **fields))
        return self._sent[-1]

    async def _commit(self, events: list[Event]) -> None:
        answer = await self.caller.send(*map(self._sent_as, events))
        assert not answer.rejected
        assert answer.accepted == self.model.commit(events)

    def _sent_as(self, event: Event) -> usage_pb2.UsageEvent:
        return self.caller.event(
            event.event_id,
            text(event.quantity),
            event.customer,
            metric=event.metric,
            cost="" if event.cost is None else text(event.cost),
            currency="" if event.cost is None else event.currency or "",
            at=event.time,
            **dict(event.properties),
        )

    async def compare_holdings(self) -> None:
        """Remaining, drawn and overage are equal to the last decimal, and so are the sums of the ledger."""
        for customer, facts in self.model.customers.items():
            holder, wallet = self.holders[customer], facts.wallet
            segments = await holder.segments()
            assert {one: Fraction(segment.remaining) for one, segment in segments.items()} == wallet.remaining()
            assert {one: Fraction(segment.drawn) for one, segment in segments.items()} == wallet.drawn()
            overage = {name: Fraction(amount) for name, amount in (await holder.overage()).items() if amount}
            assert overage == {unit[1]: amount for unit, amount in wallet.overage.items() if amount}
            sums = dict.fromkeys(wallet.ledger_sums(), Fraction(0))
            last: dict[SegmentId, Fraction] = {}
            for entry in await holder.entries():
                segment_id = entry.balance_id, entry.segment_number
                sums[segment_id] += Fraction(entry.amount)
                last[segment_id] = Fraction(entry.remaining)
            assert sums == wallet.ledger_sums()
            assert last == {one: amount for one, amount in sums.items() if one in last}

    async def compare_alerts(self) -> None:
        """Each transition that has to be sent is in a notification, once, and each state shows the current value."""
        await self._backfilled()
        await work_off(self._timers, self._database, self._clock)
        found: dict[tuple[str, str, Group], list[Transition]] = {}
        names = {alert_id: name for name, alert_id in self._alert_ids.items()}
        for one in sorted(await self.caller.notifications(), key=lambda one: one.sequence):
            group = tuple((pair["key"], pair["value"]) for pair in one.body["data"]["gauge"].get("group", ()))
            found.setdefault((names[one.alert_id], one.customer_id, group), []).extend(
                Transition(kind, Fraction(level), Fraction(previous), Fraction(value), event_id or None)
                for kind, level, previous, value, event_id in one.transitions
            )
        expected: dict[tuple[str, str, Group], list[Transition]] = {}
        for name, gauge, transition, notified in self.model.recorded:
            assert notified
            expected.setdefault((name, gauge.customer, gauge.group), []).append(shown(transition))
        assert found == expected
        for watching in self.model.alerts:
            for customer in self.model.customers:
                state = await self.caller.state(self._alert_ids[watching.name], customer)
                if watching.seat_key is None:
                    value = self.model.readings(watching, customer, self.model.now)[(), None]
                    assert [Fraction(one.gauge.value) for one in state.gauges if one.gauge.value] == (
                        [] if value is None else [rounded(value)]
                    )


async def refused_unless(possible: bool, call: Awaitable[object]) -> None:
    """Makes a call; checks that it is refused exactly when the model does not allow it."""
    code = None
    try:
        await call
    except grpc.aio.AioRpcError as error:
        code = error.code()
    assert (code is None) if possible else (code in REFUSED)


def text(amount: Fraction) -> str:
    """An amount as callers write it."""
    return format_decimal(decimal_of(amount))


def rounded(value: Fraction) -> Fraction:
    """The value as it is shown: rounded up at the last decimal, so that it does not seem to reach a threshold."""
    return Fraction(math.ceil(value * 10**18), 10**18)


def shown(one: Transition) -> Transition:
    """A transition as it is sent, with rounded values."""
    return replace(one, previous=rounded(one.previous), value=rounded(one.value))


def message_of(one: FactAlert) -> alert_pb2.Alert:
    """An alert as the API takes it."""
    levels = [text(threshold.value) for threshold in one.thresholds if threshold.value is not None]
    assert one.unit is not None
    [kind] = one.kinds
    access = access_of(one.unit)
    match kind, one.reading == PERCENT_REMAINING:
        case "COMMIT", False:
            return alert(
                *levels,
                low_remaining_commit_balance_reached=condition_pb2.LowRemainingCommitBalanceReachedCondition(
                    **access
                ),
            )
        case "COMMIT", True:
            commits = condition_pb2.LowRemainingCommitPercentageReachedCondition(**access)
            return alert(*levels, low_remaining_commit_percentage_reached=commits)
        case "CREDIT_GRANT", False:
            return alert(*levels, low_credit_balance_reached=condition_pb2.LowCreditBalanceReachedCondition())
        case "CREDIT_GRANT", True:
            grants = condition_pb2.LowRemainingCreditPercentageReachedCondition()
            return alert(*levels, low_remaining_credit_percentage_reached=grants)
    seats = condition_pb2.LowRemainingSeatBalanceReachedCondition(
        seat_filter=filter_pb2.SeatFilter(seat_group_key=one.seat_key or "")
    )
    return alert(*levels, low_remaining_seat_balance_reached=seats)


def access_of(unit: Unit) -> dict[str, Any]:
    """The unit as fields of a condition."""
    if unit[0] == "cost":
        return {"spend": access_pb2.SpendAccess(currency=unit[1])}
    return {"quantity": access_pb2.QuantityAccess(metric_id=unit[1])}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories())
async def test_service_equals_the_reference_model_for_random_balances(
    caller: Caller, clock: ManualClock, database: Database, story: list[object]
) -> None:
    clock.set(START)
    name, key = await organization(caller.database_url, clock)
    run = Run(Caller(caller.server, clock, caller.database_url, name, key), clock, database)
    for number, change in enumerate(story, start=1):
        await run.change(change)
        if number == len(story) or number % 5 == 0:
            await run.compare_holdings()
    await run.compare_alerts()
