"""Stories of recharges: random changes of a balance and its policy, for the reference model and what is tested."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import strategies as st

from evaluator.amounts import format_decimal
from tests.reference.recharges import FAILED, PAID, RechargeModel, Refused, Terms

START = Fraction(50)  # what the balance has at first


@dataclass(frozen=True)
class Use:
    """Usage, or a correction of it."""

    amount: Fraction


@dataclass(frozen=True)
class Put:
    """A policy is put, or its terms."""

    terms: Terms


@dataclass(frozen=True)
class Delete:
    """The policy is deleted."""


@dataclass(frozen=True)
class Enable:
    """The policy is switched on."""


@dataclass(frozen=True)
class Report:
    """A recharge is reported. back: 1 for the newest one, 2 for the one before."""

    back: int
    kind: str
    amount: Fraction | None = None
    permanent: bool = False


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    time: timedelta


Change = Use | Put | Delete | Enable | Report | Wait

_TERMS = st.builds(
    Terms,
    below=st.sampled_from([Fraction(0), Fraction(20), Fraction(45, 2)]),
    level=st.sampled_from([Fraction(30), Fraction(100)]),
    min_amount=st.sampled_from([Fraction(0), Fraction(7)]),
    max_amount=st.none() | st.sampled_from([Fraction(5), Fraction(90), Fraction(200)]),
    max_count=st.none() | st.integers(1, 3),
    cooldown=st.sampled_from([timedelta(), timedelta(), timedelta(hours=2)]),
    failure_cooldown=st.sampled_from([timedelta(), timedelta(hours=1), timedelta(days=3)]),
    max_attempts=st.integers(1, 3),
    report_timeout=st.sampled_from([timedelta(minutes=1), timedelta(hours=5), timedelta(days=20)]),
)
_FIXED = _TERMS.map(
    lambda terms: Terms(
        terms.below,
        None,
        terms.level,
        Fraction(0),
        terms.max_amount,
        terms.max_count,
        terms.cooldown,
        terms.failure_cooldown,
        terms.max_attempts,
        terms.report_timeout,
    )
)
_USE = st.builds(Use, st.sampled_from([Fraction(number, 4) for number in (-10, 1, 30, 90, 200)]))
_REPORT = st.builds(
    Report, st.sampled_from([1, 1, 1, 2, 3, 5]), st.sampled_from([PAID, FAILED]), st.none() | st.just(Fraction(11))
) | st.builds(Report, st.integers(1, 2), st.just(FAILED), st.none(), st.booleans())
_WAIT = st.builds(
    Wait,
    st.sampled_from(
        [timedelta(seconds=59), timedelta(minutes=1), timedelta(hours=1), timedelta(hours=5), timedelta(days=12)]
    ),
)
# Most changes twice, so that most stories have recharges that end.
_CHANGES: list[st.SearchStrategy[Change]] = [
    _USE,
    _USE,
    _REPORT,
    _REPORT,
    _WAIT,
    _WAIT,
    st.builds(Put, _TERMS | _FIXED),
    st.builds(Enable),
]


@st.composite
def stories(draw: st.DrawFn, steps: int) -> list[Change]:
    """A policy, and then as many changes as `steps` says, or half of them."""
    first: list[Change] = [Put(draw(_TERMS | _FIXED)), Use(Fraction(40))]
    kinds: list[st.SearchStrategy[Change]] = [*_CHANGES, *_CHANGES, st.builds(Delete)]
    changes = st.sampled_from(kinds).flatmap(lambda one: one)
    return [*first, *draw(st.lists(changes, min_size=steps // 2, max_size=steps))]


def possible(model: RechargeModel, change: Change) -> bool:
    """Whether a change names something that exists."""
    match change:
        case Report():
            return bool(model.recharges)
        case Delete() | Enable():
            return model.terms is not None
    return True


def index_of(model: RechargeModel, report: Report) -> int:
    """The index of the recharge that a report names."""
    return len(model.recharges) - min(report.back, len(model.recharges))


def apply(model: RechargeModel, change: Change) -> str:
    """Applies a change that is possible; returns what the answer says about it."""
    match change:
        case Use():
            model.move(-change.amount)
        case Put():
            model.put(change.terms)
        case Delete():
            model.delete()
        case Enable():
            model.enable()
        case Wait():
            model.wait(change.time)
        case Report():
            amount = change.amount if change.kind == PAID else None
            try:
                replayed = model.report(index_of(model, change), change.kind, amount, permanent=change.permanent)
            except Refused as error:
                return str(error)
            return "replayed" if replayed else ""
    return ""


def decimal(amount: Fraction) -> Decimal:
    """An amount of a story: a multiple of a quarter."""
    return Decimal(amount.numerator) / Decimal(amount.denominator)


def text(amount: Fraction) -> str:
    """An amount as callers write it."""
    return format_decimal(decimal(amount))


def shown(model: RechargeModel) -> list[tuple[int, int, str, str, str, datetime]]:
    """The recharges: number, attempt, amount, what remained, state, and when each expires."""
    return [
        (one.number, one.attempt, text(one.amount), text(one.remaining), one.state, one.expire_time)
        for one in model.recharges
    ]
