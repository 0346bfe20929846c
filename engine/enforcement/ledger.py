"""The ledger of one transaction: requests are decided in their order on what the transaction has locked and read.

It does no I/O. The transaction then writes the cells and records that it has changed, and stores its events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from engine.enforcement.credits import Credits
from engine.enforcement.deciding import Decider, part_that_remains
from engine.enforcement.metering import Metered
from engine.enforcement.requests import (
    Decided,
    EventConflict,
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
from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO
from evaluator.enforcement.decisions import Decision, LimitState, Outcome, OveragePolicy
from evaluator.enforcement.meters import MeterCell
from evaluator.enforcement.reservations import DEFAULT_TTL, Reservation, ReservationState
from evaluator.events import UsageEvent
from store.enforcement.records import HeldCharge, Record, Settlement

_OPEN = ReservationState.OPEN


@dataclass(eq=False, slots=True)
class Ledger:
    """The state of the customers of one transaction. All methods must run under `exact_arithmetic`.

    now: the transaction's. cells: by `MeterCell.key`; those of all targets and of all held charges. records: those of
    the reservations that requests name, as far as they exist. events: the usage of settlements, in their order.
    decider: decides by the cells.
    """

    now: datetime
    cells: Mapping[str, MeterCell]
    records: dict[tuple[str, str], Record]
    credits: Credits
    events: list[UsageEvent] = field(default_factory=list)
    decider: Decider = field(init=False)

    def __post_init__(self) -> None:
        """Makes the decider."""
        self.decider = Decider(self.now, self.cells)

    def check(self, metered: Metered, policy: OveragePolicy) -> Decision:
        """Decides, and changes nothing. Where all of it fits, the decision shows the limit that leaves least."""
        usage = metered.usage
        charges = self.decider.charges(metered, usage.quantity, usage.cost)
        decision = self.decider.decide(metered, policy, charges, self.credits.available(usage), reports=False)
        if decision.limit is None and decision.credit is None and charges:
            least = charges[0] if len(charges) == 1 else min(charges, key=part_that_remains)
            decision.limit = self.decider.state(least)  # nothing else has this decision yet
        return decision

    def reserve(self, request: Reserve, metered: Metered, digest: str) -> Decided:
        """Decides, and holds what is granted. Raises ReservationConflict and ExpireTimePassed."""
        usage = metered.usage
        known = self.records.get((usage.customer_id, request.reservation_id))
        if known is not None:
            if known.digest.replace("-", "") != digest:
                raise ReservationConflict(usage.customer_id, request.reservation_id)
            # What it holds of meters that this usage does not move was not read: then the expiry gives it back.
            same_units = known.reservation.usage.currency == usage.currency
            if same_units and all(one.key in self.cells for one in known.held):
                self.expire(known)
            return Decided(known.decision, known.reservation, replayed=True)
        expire_time = self._expire_time(request)
        charges = self.decider.charges(metered, usage.quantity, usage.cost)
        decision = self.decider.decide(metered, request.policy, charges, self.credits.available(usage), reports=True)
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
                charges = self.decider.charges(metered, decision.granted_quantity, decision.granted_cost)
            held = []
            for _, cell, amount in charges:
                if amount:
                    cell.hold(amount)
                    held.append(HeldCharge(cell.customer_id, cell.key, amount))
            record.hold(held)
            record.draws = self.credits.hold(usage, decision.granted_quantity, decision.granted_cost)
        if outcome is not Outcome.ALLOWED or decision.over:
            record.answer_with(decision)
            self.decider.note_reservation(decision, record)
        self.records[record.key] = record
        return Decided(decision, reservation)

    def settle(self, request: Settle, metered: Metered | None) -> Decided:
        """Counts the usage of a reservation, and ends it.

        metered: its usage, with the targets of now. Raises ReservationNotFound, ReservationEnded,
        ReservationWithoutCost, and EventConflict where that was answered before.
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
            return Decided(before.decision, one, replayed=True)
        if record.has_conflict:
            raise EventConflict(one.customer_id, one.reservation_id)
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
        is_open = one.state is _OPEN
        if is_open:
            self._end(record, ReservationState.RELEASED)
        elif one.state not in (ReservationState.RELEASED, ReservationState.EXPIRED):
            raise ReservationEnded(one.customer_id, one.reservation_id, one.state)
        return Decided(None, record.reservation, replayed=not is_open)

    def refuse_settlement(self, record: Record) -> None:
        """Gives back what a reservation holds that cannot be settled: an event of its id is stored already."""
        self.expire(record)
        if record.reservation.state is _OPEN:
            self._end(record, ReservationState.RELEASED)
            record.note_conflict()

    def extend(self, request: Extend) -> Decided:
        """Moves the time at which a reservation expires.

        Raises ReservationNotFound, ReservationEnded and ExpireTimePassed.
        """
        record = self._record(request)
        self.expire(record)
        one = record.reservation
        if one.state is not _OPEN:
            raise ReservationEnded(one.customer_id, one.reservation_id, one.state)
        expire_time = self._expire_time(request)
        is_known = expire_time == one.expire_time
        if not is_known:
            record.change(expire_time=expire_time)
        return Decided(None, record.reservation, replayed=is_known)

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
                decision = self._decide_more(record, metered, more, more_cost)
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
            self.decider.note_settlement(capped, decision, record, asked)
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

    def _decide_more(self, record: Record, metered: Metered, quantity: Decimal, cost: Decimal | None) -> Decision:
        """The decision about what a settlement counts beyond what was granted; what was granted is still held."""
        more = replace(metered, usage=replace(metered.usage, quantity=quantity, cost=cost))
        credits = self.credits.available(more.usage)
        if metered.aggregation is Aggregation.COUNT:  # the number of events is the same, so only the cost has to fit
            of_cost = [target for target in metered.targets if target.of_cost]
            more = replace(more, aggregation=Aggregation.SUM, targets=of_cost)
            credits = [one for one in credits if one.unit.metric_id is None]
        charges = self.decider.charges(more, quantity, cost)
        own = {held.key: held.amount for held in record.held}
        return self.decider.decide(more, record.reservation.policy, charges, credits, reports=True, own=own)

    def _counted(self, metered: Metered, event: UsageEvent, draws: str | None) -> Decision:
        """Counts an event that is stored, and draws it; the decision says which limits it is over."""
        over: tuple[LimitState, ...] = ()
        for charge in self.decider.charges(metered, event.quantity, event.cost):
            target, cell, amount = charge
            if amount and cell.counted + cell.held + amount > target.limit.amount:
                over += (self.decider.state(charge),)
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
