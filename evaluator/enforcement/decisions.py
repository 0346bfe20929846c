"""Decisions: whether a usage fits into all limits that it meets, and how much of it does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from evaluator.amounts import MAX_DECIMALS, ZERO, format_decimal
from evaluator.balances import Unit
from evaluator.enforced_limits import EnforcedLimit, Enforcement
from evaluator.enforcement.meters import Meter, MeterState
from evaluator.periods import Period

# The smallest part of an amount: granted parts are multiples of it.
_LEAST = Decimal(1).scaleb(-MAX_DECIMALS)


class OveragePolicy(StrEnum):
    """What to do with usage that does not fit."""

    DEFAULT = "DEFAULT"  # a reservation is refused; at settlement, all usage counts
    REJECT = "REJECT"  # a reservation, and a settlement that is too large, are refused
    CAP = "CAP"  # as much as fits is granted
    OVERFLOW = "OVERFLOW"  # all of it is granted, and passes the limit


class Outcome(StrEnum):
    """How a request was decided."""

    ALLOWED = "ALLOWED"  # all of it
    CAPPED = "CAPPED"  # a part of it
    DENIED = "DENIED"  # nothing of it


class Reason(StrEnum):
    """Why less than all was granted."""

    LIMIT = "LIMIT"  # a hard limit leaves less
    BALANCE = "BALANCE"  # the balances have less credit


@dataclass(frozen=True, slots=True)
class LimitCharge:
    """What a usage takes of one limit. level: 0 for the customer itself, 1 for its parent and so on."""

    limit: EnforcedLimit
    meter: Meter
    amount: Decimal
    level: int


@dataclass(frozen=True, slots=True)
class Credit:
    """What balances can give in a unit. available: None where they can be overdrawn without an end."""

    unit: Unit
    amount: Decimal  # that the usage takes
    available: Decimal | None


@dataclass(slots=True, unsafe_hash=True)  # not frozen: see `Usage`
class LimitState:
    """A limit and its meter at a decision, before what the decision grants. It is not changed.

    span: of its window. reset_time: when enough will have left the window for the same request; None: never, or not
    asked for.
    """

    limit: EnforcedLimit
    meter: Meter
    counted: Decimal
    held: Decimal
    remaining: Decimal
    span: Period
    reset_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class CreditState:
    """The credit of a customer in a unit at a decision; available: as in `Credit`."""

    unit: Unit
    available: Decimal | None


@dataclass(slots=True)  # not frozen: see `Usage`
class Decision:
    """The answer to a request.

    limit, credit: what refused or capped it, with its reason. over: the
    limits that are passed when it is granted: soft ones, and hard ones under OVERFLOW.
    """

    outcome: Outcome
    granted_quantity: Decimal
    granted_cost: Decimal | None
    reason: Reason | None = None
    limit: LimitState | None = None
    credit: CreditState | None = None
    over: tuple[LimitState, ...] = ()
    retry_after: timedelta | None = None

    @property
    def is_denied(self) -> bool:
        """Whether nothing was granted."""
        return self.outcome is Outcome.DENIED


@dataclass(frozen=True, slots=True)
class Fit:
    """How much of a request fits. tightest: what leaves the smallest share; None if all of it fits."""

    share: Fraction
    tightest: LimitCharge | Credit | None = None
    over: tuple[LimitCharge, ...] = ()

    def part_of(self, amount: Decimal) -> Decimal:
        """The part of an amount of the request that fits, rounded down. Must run under `exact_arithmetic`."""
        if self.share >= 1:
            return amount
        exact = Fraction(amount) * self.share
        return Decimal(format_decimal(Decimal((exact / Fraction(_LEAST)).__floor__()) * _LEAST))


def fit(charges: Sequence[tuple[LimitCharge, MeterState]], credits: Iterable[Credit]) -> Fit:
    """How much of a request fits into all hard limits and credits. Must run under `exact_arithmetic`.

    charges: those of level 0 first. `over` has the limits of all kinds that the whole request passes.
    """
    tightest: LimitCharge | Credit | None = None
    least = Fraction(1)
    over = []
    for charge, state in charges:
        available = state.remaining(charge.limit.amount)
        if charge.amount <= available or charge.amount <= ZERO:
            continue
        over.append(charge)
        if charge.limit.enforcement is Enforcement.HARD:
            share = max(Fraction(0), Fraction(available) / Fraction(charge.amount))
            if tightest is None or (share, _rank(charge)) < (least, _rank(tightest)):
                tightest, least = charge, share
    for credit in credits:
        if credit.available is None or credit.amount <= credit.available or credit.amount <= ZERO:
            continue
        share = max(Fraction(0), Fraction(credit.available) / Fraction(credit.amount))
        if tightest is None or share < least:
            tightest, least = credit, share
    return Fit(least, tightest, tuple(over))


def _rank(one: LimitCharge | Credit) -> tuple[int, str]:
    return (one.level, one.limit.limit_id) if isinstance(one, LimitCharge) else (0, "")
