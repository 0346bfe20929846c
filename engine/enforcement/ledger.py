"""The ledger of one transaction: requests are decided in their order on what the transaction has locked and read.

It does no I/O. The transaction then writes the cells and records that it has changed, and stores its events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from engine.enforcement.requests import (
    Decided,
    ExpireTimePassed,
    Extend,
    Release,
    ReservationConflict,
    ReservationEnded,
    ReservationNotFound,
    ReservationWithoutCost,
    Reserve,
    Settle,
)
from evaluator.aggregation import Aggregation, contribution
from evaluator.amounts import ZERO
from evaluator.enforced_limits import Enforcement
from evaluator.enforcement.decisions import (
    Credit,
    CreditState,
    Decision,
    Fit,
    LimitCharge,
    LimitState,
    Outcome,
    OveragePolicy,
    Reason,
    fit,
)
from evaluator.enforcement.meters import MeterCell
from evaluator.enforcement.reservations import DEFAULT_TTL, Reservation, ReservationState
from evaluator.enforcement.states import limit_state
from evaluator.enforcement.targets import Charge, Target
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from evaluator.limit_windows import MINUTE
from store.enforcement.records import HeldCharge, Record, Settlement

# How soon to try again where only what others hold is in the way: it can be given back at any time.
HELD_RETRY = timedelta(seconds=1)

_OPEN = ReservationState.OPEN


class Credits(Protocol):
    """The balances of the customers of one transaction, as far as usage draws on them."""

    def available(self, usage: Usage) -> Sequence[Credit]:
        """What balances can give in each unit in which the usage needs credit."""

    def hold(self, usage: Usage, quantity: Decimal, cost: Decimal | None) -> str | None:
        """Holds what the usage takes; returns as JSON what was taken of which segments."""

    def give_back(self, usage: Usage, draws: str) -> None:
        """Gives back what `hold` has taken."""

    def settle(self, usage: Usage, draws: str | None, event: UsageEvent) -> None:
        """Draws the amounts of an event, first what was held for it, and gives the rest of that back."""


class NoCredits:
    """The credits of customers without balances."""

    def available(self, usage: Usage) -> Sequence[Credit]:
        """None are needed."""
        return ()

    def hold(self, usage: Usage, quantity: Decimal, cost: Decimal | None) -> str | None:
        """Holds nothing."""
        return None

    def give_back(self, usage: Usage, draws: str) -> None:
        """Gives nothing back."""

    def settle(self, usage: Usage, draws: str | None, event: UsageEvent) -> None:
        """Draws nothing."""


@dataclass(frozen=True, slots=True)
class Metered:
    """Usage with all that its decision needs.

    usage: its event_time is set, and its currency where it has a cost. aggregation: of its metric. targets: what it
    moves at its event_time.
    """

    usage: Usage
    aggregation: Aggregation
    targets: Sequence[Target]

    def meter_keys(self) -> list[str]:
        """The keys of the meters that it moves."""
        time = self.usage.event_time
        assert time is not None
        return [target.meter_at(time).key for target in self.targets]


class Refusal(NamedTuple):
    """A hard limit that refused a request for the first time in its window."""

    target: Target
    cell: MeterCell
    state: LimitState


@dataclass(eq=False, slots=True)
class Rolling:
    """A decision that names a rolling limit, whose reset time has to be read.

    excess: what has to leave the window for the request to fit. record: whose first answer it is.
    """

    decision: Decision
    state: LimitState
    excess: Decimal
    record: Record | None


@dataclass(eq=False, slots=True)
class Ledger:
    """The state of the customers of one transaction. All methods must run under `exact_arithmetic`.

    now: the transaction's. cells: by `MeterCell.key`; those of all targets and of all held charges. records: those of
    the reservations that requests name, as far as they exist. events: the usage of settlements, in their order.
    refusals: to be reported. rolling: by id of their decisions.
    """

    now: datetime
    cells: Mapping[str, MeterCell]
    records: dict[tuple[str, str], Record]
    credits: Credits
    events: list[UsageEvent] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    rolling: list[Rolling] = field(default_factory=list)

    def check(self, metered: Metered, policy: OveragePolicy) -> Decision:
        """Decides, and changes nothing. Where all of it fits, the decision shows the limit that leaves least."""
        usage = metered.usage
        charges = self._charges(metered, usage.quantity, usage.cost)
        decision = self._decide(metered, policy, charges, self.credits.available(usage), reports=False)
        if decision.limit is None and decision.credit is None and charges:
            least = min(charges, key=_part_that_remains)
            decision = replace(decision, limit=self._state(least))
        return decision

    def reserve(self, request: Reserve, metered: Metered, digest: str) -> Decided:
        """Decides, and holds what is granted. Raises ReservationConflict and ExpireTimePassed."""
        usage = metered.usage
        known = self.records.get((usage.customer_id, request.reservation_id))
        if known is not None:
            if known.digest.replace("-", "") != digest:
                raise ReservationConflict(usage.customer_id, request.reservation_id)
            # What it holds of meters that this usage does not move was not read: then the expiry gives it back.
            if all(one.key in self.cells for one in known.held):
                self.expire(known)
            return Decided(known.decision, known.reservation)
        expire_time = self._expire_time(request)
        charges = self._charges(metered, usage.quantity, usage.cost)
        decision = self._decide(metered, request.policy, charges, self.credits.available(usage), reports=True)
        outcome = decision.outcome
        denied = outcome is Outcome.DENIED
        reservation = Reservation(
            request.reservation_id,
            usage,
            request.policy,
            ReservationState.DENIED if denied else _OPEN,
            outcome,
            decision.granted_quantity,
            decision.granted_cost,
            self.now,
            expire_time,
            self.now if denied else None,
        )
        record = Record(reservation, digest, is_new=True, changed=True)
        if not denied:
            if outcome is Outcome.CAPPED:
                charges = self._charges(metered, decision.granted_quantity, decision.granted_cost)
            held = []
            for _, cell, amount in charges:
                if amount:
                    cell.hold(amount)
                    held.append(HeldCharge(cell.customer_id, cell.key, amount))
            record.hold(held)
            record.draws = self.credits.hold(usage, decision.granted_quantity, decision.granted_cost)
        if outcome is not Outcome.ALLOWED or decision.over:
            record.answer_with(decision)
            self._note_record(decision, record)
        self.records[record.key] = record
        return Decided(decision, reservation)

    def settle(self, request: Settle, metered: Metered | None) -> Decided:
        """Counts the usage of a reservation, and ends it.

        metered: its usage, with the targets of now. Raises ReservationNotFound, ReservationEnded and
        ReservationWithoutCost.
        """
        record = self._record(request)
        self.expire(record)
        one = record.reservation
        quantity = one.granted_quantity if request.quantity is None else request.quantity
        cost = one.granted_cost if request.cost is None else request.cost
        if cost is not None and one.usage.cost is None:
            raise ReservationWithoutCost(one.customer_id, one.reservation_id)
        if (before := record.settled) is not None:
            if (before.quantity, before.cost) != (quantity, cost):
                raise ReservationEnded(one.customer_id, one.reservation_id, one.state)
            return Decided(before.decision, one)
        if one.state not in (_OPEN, ReservationState.EXPIRED):
            raise ReservationEnded(one.customer_id, one.reservation_id, one.state)
        assert metered is not None, "a reservation that can be settled has its targets"
        if one.state is _OPEN:
            return self._settle_open(record, metered, quantity, cost)
        event = self._event(one, quantity, cost)
        decision = self._counted(metered, event, None)
        record.change(settled_quantity=quantity, settled_cost=cost, late=True)
        record.settle_with(Settlement(quantity, cost, decision))
        return Decided(decision, record.reservation)

    def release(self, request: Release) -> Decided:
        """Gives back what a reservation holds. Raises ReservationNotFound and ReservationEnded."""
        record = self._record(request)
        self.expire(record)
        one = record.reservation
        if one.state is _OPEN:
            self._end(record, ReservationState.RELEASED)
        elif one.state not in (ReservationState.RELEASED, ReservationState.EXPIRED):
            raise ReservationEnded(one.customer_id, one.reservation_id, one.state)
        return Decided(None, record.reservation)

    def extend(self, request: Extend) -> Decided:
        """Moves the time at which a reservation expires.

        Raises ReservationNotFound, ReservationEnded and ExpireTimePassed.
        """
        record = self._record(request)
        self.expire(record)
        one = record.reservation
        if one.state is not _OPEN:
            raise ReservationEnded(one.customer_id, one.reservation_id, one.state)
        record.change(expire_time=self._expire_time(request))
        return Decided(None, record.reservation)

    def expire(self, record: Record) -> bool:
        """Gives back what a reservation holds if its grace has ended; returns whether it did."""
        if not record.is_due(self.now):
            return False
        self._end(record, ReservationState.EXPIRED)
        return True

    def _expire_time(self, request: Reserve | Extend) -> datetime:
        """When the reservation expires. Raises ExpireTimePassed."""
        time = request.expire_time
        if time is None:
            return self.now + (request.ttl or DEFAULT_TTL)
        if time <= self.now:
            raise ExpireTimePassed(request.customer_id, time, self.now)
        return time

    def _settle_open(self, record: Record, metered: Metered, quantity: Decimal, cost: Decimal | None) -> Decided:
        one = record.reservation
        capped: Decision | None = None
        if one.policy in (OveragePolicy.REJECT, OveragePolicy.CAP):
            more = max(quantity - one.granted_quantity, ZERO)
            more_cost = None if cost is None else max(cost - (one.granted_cost or ZERO), ZERO)
            if more or more_cost:
                decision = self._decide_more(metered, one.policy, more, more_cost)
                if decision.outcome is Outcome.DENIED and one.policy is OveragePolicy.REJECT:
                    return Decided(decision, one)  # it stays open
                if decision.outcome is not Outcome.ALLOWED:
                    capped = decision
        asked = quantity, cost
        if capped is not None:
            if quantity > one.granted_quantity:
                quantity = one.granted_quantity + capped.granted_quantity
            if cost is not None and cost > (one.granted_cost or ZERO):
                cost = (one.granted_cost or ZERO) + (capped.granted_cost or ZERO)
        event = self._event(one, quantity, cost)
        for held in record.held:
            self.cells[held.key].hold(-held.amount)
        decision = self._counted(metered, event, record.draws)
        if capped is not None:
            decision = replace(
                decision, outcome=Outcome.CAPPED, reason=capped.reason, limit=capped.limit, credit=capped.credit
            )
            self._note_record(capped, record)
        record.reservation = Reservation(
            one.reservation_id,
            one.usage,
            one.policy,
            ReservationState.SETTLED,
            one.outcome,
            one.granted_quantity,
            one.granted_cost,
            one.create_time,
            one.expire_time,
            self.now,
            quantity,
            cost,
        )
        record.changed = True
        if decision.outcome is not Outcome.ALLOWED or decision.over:
            record.settle_with(Settlement(*asked, decision))
        return Decided(decision, record.reservation)

    def _decide_more(
        self, metered: Metered, policy: OveragePolicy, quantity: Decimal, cost: Decimal | None
    ) -> Decision:
        """The decision about what a settlement counts beyond what was granted; what was granted is still held."""
        more = replace(metered, usage=replace(metered.usage, quantity=quantity, cost=cost))
        credits = self.credits.available(more.usage)
        if metered.aggregation is Aggregation.COUNT:  # the number of events is the same, so only the cost has to fit
            of_cost = [target for target in metered.targets if target.of_cost]
            more = replace(more, aggregation=Aggregation.SUM, targets=of_cost)
            credits = [one for one in credits if one.unit.metric_id is None]
        charges = self._charges(more, quantity, cost)
        return self._decide(more, policy, charges, credits, reports=True)

    def _counted(self, metered: Metered, event: UsageEvent, draws: str | None) -> Decision:
        """Counts an event that is stored, and draws it; the decision says which limits it is over."""
        over: tuple[LimitState, ...] = ()
        for charge in self._charges(metered, event.quantity, event.cost):
            target, cell, amount = charge
            if amount and cell.counted + cell.held + amount > target.limit.amount:
                over += (self._state(charge),)
            cell.count(amount, event.event_time)
        self.credits.settle(metered.usage, draws, event)
        self.events.append(event)
        return Decision(Outcome.ALLOWED, event.quantity, event.cost, over=over)

    def _event(self, one: Reservation, quantity: Decimal, cost: Decimal | None) -> UsageEvent:
        usage = one.usage
        assert usage.event_time is not None
        return UsageEvent(
            one.reservation_id,
            usage.customer_id,
            usage.event_time,
            usage.metric_id,
            quantity,
            usage.subscription_id,
            cost,
            None if cost is None else usage.currency,
            usage.properties,
        )

    def _end(self, record: Record, state: ReservationState) -> None:
        """Ends an open reservation without usage."""
        for held in record.held:
            self.cells[held.key].hold(-held.amount)
        if record.draws is not None:
            self.credits.give_back(record.reservation.usage, record.draws)
        record.change(state=state, end_time=self.now)

    def _record(self, request: Settle | Release | Extend) -> Record:
        record = self.records.get((request.customer_id, request.reservation_id))
        if record is None:
            raise ReservationNotFound(request.customer_id, request.reservation_id)
        return record

    def _charges(self, metered: Metered, quantity: Decimal, cost: Decimal | None) -> list[Charge]:
        """What amounts of a usage take of its targets."""
        if not metered.targets:
            return []
        cells, time = self.cells, metered.usage.event_time
        assert time is not None
        amount = quantity if metered.aggregation is Aggregation.SUM else contribution(metered.aggregation, quantity)
        of_cost = ZERO if cost is None else cost
        return [
            Charge(target, cells[target.meter_at(time).key], of_cost if target.of_cost else amount)
            for target in metered.targets
        ]

    def _decide(
        self,
        metered: Metered,
        policy: OveragePolicy,
        charges: Sequence[Charge],
        credits: Sequence[Credit],
        *,
        reports: bool,
    ) -> Decision:
        """The decision about a usage. reports: whether a hard limit that refuses it is to be reported."""
        usage = metered.usage
        for target, cell, amount in charges:
            if amount and cell.counted + cell.held + amount > target.limit.amount:
                break
        else:
            for credit in credits:
                if credit.available is not None and credit.amount > credit.available:
                    break
            else:
                return Decision(Outcome.ALLOWED, usage.quantity, usage.cost)
        return self._decide_what_does_not_fit(metered, policy, charges, credits, reports=reports)

    def _decide_what_does_not_fit(
        self,
        metered: Metered,
        policy: OveragePolicy,
        charges: Sequence[Charge],
        credits: Sequence[Credit],
        *,
        reports: bool,
    ) -> Decision:
        usage = metered.usage
        by_meter = {charge.cell.key: charge for charge in charges}
        found = fit([(_limit_charge(charge), charge.cell) for charge in charges], credits)
        if found.tightest is None or policy is OveragePolicy.OVERFLOW:
            over = tuple(self._state(by_meter[one.meter.key]) for one in found.over)
            return Decision(Outcome.ALLOWED, usage.quantity, usage.cost, over=over)
        quantity, cost = self._part(metered, policy, found)
        if reports:
            self._report([by_meter[one.meter.key] for one in found.over if one.limit.enforcement is Enforcement.HARD])
        values: dict[str, Any] = {"granted_quantity": quantity, "granted_cost": cost}
        if quantity or cost:
            values["outcome"] = Outcome.CAPPED
            granted = self._charges(metered, quantity, cost)
            values["over"] = tuple(
                self._state(one)
                for one in granted
                if one.target.limit.enforcement is Enforcement.SOFT
                and one.amount
                and one.cell.counted + one.cell.held + one.amount > one.target.limit.amount
            )
        else:
            values["outcome"] = Outcome.DENIED
        if isinstance(found.tightest, Credit):
            state = CreditState(found.tightest.unit, found.tightest.available)
            return Decision(reason=Reason.BALANCE, credit=state, **values)
        return self._refused_by(by_meter[found.tightest.meter.key], values)

    def _part(self, metered: Metered, policy: OveragePolicy, found: Fit) -> tuple[Decimal, Decimal | None]:
        """The part of the amounts that is granted; zeros where nothing is."""
        usage = metered.usage
        nothing = ZERO, None if usage.cost is None else ZERO
        if policy is not OveragePolicy.CAP or found.share <= 0:
            return nothing
        if metered.aggregation is Aggregation.COUNT:  # an event counts as a whole, whatever refuses it
            return nothing
        return found.part_of(usage.quantity), None if usage.cost is None else found.part_of(usage.cost)

    def _refused_by(self, charge: Charge, values: Mapping[str, Any]) -> Decision:
        """The decision that a limit refused or capped."""
        target, cell, amount = charge
        state = self._state(charge)
        retry_after: timedelta | None = None
        fits_alone = amount <= target.limit.amount
        if not fits_alone:
            state = replace(state, reset_time=None)
        if values["outcome"] is Outcome.DENIED and fits_alone:
            if cell.counted + amount <= target.limit.amount:
                retry_after = HELD_RETRY
            elif state.reset_time is not None:
                retry_after = max(state.reset_time - self.now, timedelta())
        decision = Decision(reason=Reason.LIMIT, limit=state, retry_after=retry_after, **values)
        if state.meter.span is None and fits_alone:
            excess = cell.counted + cell.held + amount - target.limit.amount
            self.rolling.append(Rolling(decision, state, excess, None))
        return decision

    def _note_record(self, decision: Decision, record: Record) -> None:
        for one in self.rolling:
            if one.decision is decision:
                one.record = record

    def _report(self, charges: Sequence[Charge]) -> None:
        """Notes hard limits that refused; each is reported once in its window."""
        for charge in charges:
            target, cell, _ = charge
            minutes = target.limit.window.minutes
            if cell.refused_time is not None and (minutes is None or cell.refused_time > self.now - minutes * MINUTE):
                continue
            cell.refused_time, cell.changed = self.now, True
            self.refusals.append(Refusal(target, cell, self._state(charge)))

    def _state(self, charge: Charge) -> LimitState:
        return limit_state(charge, self.now)


def _limit_charge(charge: Charge) -> LimitCharge:
    target, cell, amount = charge
    assert cell.meter is not None
    return LimitCharge(target.limit, cell.meter, amount, target.holder.level)


def _part_that_remains(charge: Charge) -> tuple[bool, Fraction, int, str]:
    """Orders limits: hard ones first, then by the part that remains of them, then the nearest first."""
    target, cell, _ = charge
    limit = target.limit
    part = Fraction(cell.remaining(limit.amount)) / Fraction(limit.amount) if limit.amount else Fraction()
    return limit.enforcement is not Enforcement.HARD, part, target.holder.level, limit.limit_id
