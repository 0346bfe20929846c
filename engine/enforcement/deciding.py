"""Deciding: whether usage fits into what limits and balances leave, by the meters of one transaction.

It does no I/O, and changes no amount.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from engine.enforcement.metering import Metered
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
from evaluator.enforcement.states import limit_state
from evaluator.enforcement.targets import Charge, Target
from evaluator.limit_windows import MINUTE
from store.enforcement.records import Record

Asked: TypeAlias = tuple[Decimal, Decimal | None]  # quantity and cost
NOTHING: Mapping[str, Decimal] = {}

# How soon to try again where only what others hold is in the way: it can be given back at any time.
HELD_RETRY = timedelta(seconds=1)


class Refusal(NamedTuple):
    """A hard limit that refused a request for the first time in its window."""

    target: Target
    cell: MeterCell
    state: LimitState


@dataclass(eq=False, slots=True)
class Rolling:
    """A decision that names a rolling limit, whose reset time has to be read.

    excess: what has to leave the window for the request to fit. record: whose answer it is. asked: quantity and cost
    of its settlement; None: it is the first answer.
    """

    decision: Decision
    state: LimitState
    excess: Decimal
    record: Record | None = None
    asked: Asked | None = None


@dataclass(eq=False, slots=True)
class Decider:
    """Decides by the meters as they are. All methods must run under `exact_arithmetic`.

    now: the transaction's. cells: by `MeterCell.key`; those of all targets. refusals: to be reported. rolling: by id
    of their decisions.
    """

    now: datetime
    cells: Mapping[str, MeterCell]
    refusals: list[Refusal] = field(default_factory=list)
    rolling: list[Rolling] = field(default_factory=list)

    def charges(self, metered: Metered, quantity: Decimal, cost: Decimal | None) -> list[Charge]:
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

    def decide(
        self,
        metered: Metered,
        policy: OveragePolicy,
        charges: Sequence[Charge],
        credits: Sequence[Credit],
        *,
        reports: bool,
        own: Mapping[str, Decimal] = NOTHING,
    ) -> Decision:
        """The decision about a usage. reports: whether a hard limit that refuses it is to be reported.

        own: what the reservation that asks for more holds already, by `MeterCell.key`.
        """
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
        return self._decide_what_does_not_fit(metered, policy, charges, credits, own, reports=reports)

    def _decide_what_does_not_fit(
        self,
        metered: Metered,
        policy: OveragePolicy,
        charges: Sequence[Charge],
        credits: Sequence[Credit],
        own: Mapping[str, Decimal],
        *,
        reports: bool,
    ) -> Decision:
        usage = metered.usage
        by_meter = {charge.cell.key: charge for charge in charges}
        found = fit([(_limit_charge(charge), charge.cell) for charge in charges], credits)
        if found.tightest is None or policy is OveragePolicy.OVERFLOW:
            over = tuple(self.state(by_meter[one.meter.key]) for one in found.over)
            return Decision(Outcome.ALLOWED, usage.quantity, usage.cost, over=over)
        quantity, cost = self._part(metered, policy, found)
        if reports:
            self._report([by_meter[one.meter.key] for one in found.over if one.limit.enforcement is Enforcement.HARD])
        values: dict[str, Any] = {"granted_quantity": quantity, "granted_cost": cost}
        if quantity or cost:
            values["outcome"] = Outcome.CAPPED
            granted = self.charges(metered, quantity, cost)
            values["over"] = tuple(
                self.state(one)
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
        key = found.tightest.meter.key
        return self._refused_by(by_meter[key], values, own.get(key, ZERO), timed=metered.timed)

    def _part(self, metered: Metered, policy: OveragePolicy, found: Fit) -> tuple[Decimal, Decimal | None]:
        """The part of the amounts that is granted; zeros where nothing is."""
        usage = metered.usage
        nothing = ZERO, None if usage.cost is None else ZERO
        if policy is not OveragePolicy.CAP or found.share <= 0:
            return nothing
        if metered.aggregation is Aggregation.COUNT:  # an event counts as a whole, whatever refuses it
            return nothing
        return found.part_of(usage.quantity), None if usage.cost is None else found.part_of(usage.cost)

    def _refused_by(self, charge: Charge, values: Mapping[str, Any], own: Decimal, *, timed: bool) -> Decision:
        """The decision that a limit refused or capped. own, timed: of the usage that asks."""
        target, cell, amount = charge
        state, most = self.state(charge), target.limit.amount - own
        is_rolling, retry_after = state.meter.span is None, None
        fits_alone = amount <= most
        if not fits_alone or (timed and not is_rolling):  # after the window's end it counts in the same window
            state = replace(state, reset_time=None)
        if values["outcome"] is Outcome.DENIED and fits_alone:
            if cell.counted + amount <= most:
                retry_after = HELD_RETRY
            elif state.reset_time is not None:
                retry_after = max(state.reset_time - self.now, timedelta())
        decision = Decision(reason=Reason.LIMIT, limit=state, retry_after=retry_after, **values)
        if is_rolling and fits_alone:
            excess = cell.counted + cell.held + amount - target.limit.amount
            self.rolling.append(Rolling(decision, state, excess))
        return decision

    def note_reservation(self, decision: Decision, record: Record) -> None:
        """Notes whose first answer a decision is, for its reset time."""
        for one in self.rolling:
            if one.decision is decision:
                one.record = record

    def note_settlement(self, capped: Decision, decision: Decision, record: Record, asked: Asked) -> None:
        """Notes whose settlement a decision is that names the limit of `capped`, for its reset time."""
        for one in self.rolling:
            if one.decision is capped:
                one.decision, one.record, one.asked = decision, record, asked

    def _report(self, charges: Sequence[Charge]) -> None:
        """Notes hard limits that refused; each is reported once in its window."""
        for charge in charges:
            target, cell, _ = charge
            minutes = target.limit.window.minutes
            if cell.refused_time is not None and (minutes is None or cell.refused_time > self.now - minutes * MINUTE):
                continue
            cell.refused_time, cell.changed = self.now, True
            self.refusals.append(Refusal(target, cell, self.state(charge)))

    def state(self, charge: Charge) -> LimitState:
        """The limit and its meter as they are."""
        return limit_state(charge, self.now)


def _limit_charge(charge: Charge) -> LimitCharge:
    target, cell, amount = charge
    assert cell.meter is not None
    return LimitCharge(target.limit, cell.meter, amount, target.holder.level)


def part_that_remains(charge: Charge) -> tuple[bool, Fraction, int, str]:
    """Orders limits: hard ones first, then by the part that remains of them, then the nearest first."""
    target, cell, _ = charge
    limit = target.limit
    part = Fraction(cell.remaining(limit.amount)) / Fraction(limit.amount) if limit.amount else Fraction()
    return limit.enforcement is not Enforcement.HARD, part, target.holder.level, limit.limit_id
