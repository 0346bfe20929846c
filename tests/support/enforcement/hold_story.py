"""Random stories of one organization's reservations, usage, limits and balances."""

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from tests.reference.balances import Unit
from tests.reference.enforced_limits import DAY, HARD, HOUR, MONTH, NONE, ROLLING, SOFT
from tests.reference.gauges import COUNT
from tests.reference.holds import CAP, DEFAULT, OVERFLOW, REJECT

ORG, TEAM, ANN, BOB = "org", "team", "ann", "bob"
CUSTOMERS = (ORG, TEAM, ANN, BOB)
PARENTS = {TEAM: ORG, ANN: TEAM, BOB: TEAM}
GOLD, SILVER = "gold", "silver"
PLANS = {ANN: GOLD, TEAM: GOLD}
MAIN = "main"  # a subscription of ANN, and one of BOB
KOLKATA = "Asia/Kolkata"
ZONES = {"": Fraction(0), KOLKATA: Fraction(11, 2)}  # hours ahead
CALL_METRIC, REQUEST_METRIC = "calls", "requests"
AGGREGATIONS = {REQUEST_METRIC: COUNT}
CALLS: Unit = ("usage", CALL_METRIC)
REQUESTS: Unit = ("usage", REQUEST_METRIC)
DOLLARS: Unit = ("cost", "USD")
REGIONS = ("eu", "us")


@dataclass(frozen=True)
class Use:
    """Usage. before: how long before now it happens; None: its time is left out."""

    customer: str
    quantity: Fraction
    cost: Fraction | None
    region: str | None
    before: timedelta | None
    metric: str = CALL_METRIC
    subscription: str | None = None


@dataclass(frozen=True)
class Reserve:
    """A reservation. seconds: its ttl."""

    use: Use
    policy: str
    seconds: int


@dataclass(frozen=True)
class Again:
    """A request that was made before, so many requests ago."""

    back: int


@dataclass(frozen=True)
class Settle:
    """A settlement of a reservation, so many reservations ago."""

    back: int
    quantity: Fraction | None
    cost: Fraction | None


@dataclass(frozen=True)
class Release:
    """The release of one."""

    back: int


@dataclass(frozen=True)
class Extend:
    """The extension of one."""

    back: int
    seconds: int


@dataclass(frozen=True)
class Ask:
    """Requests that one gateway gets together."""

    requests: tuple[Reserve | Again | Settle | Release | Extend, ...]


@dataclass(frozen=True)
class Send:
    """Usage that happened. settles: the reservation that it names, so many reservations ago."""

    use: Use
    settles: int | None


@dataclass(frozen=True)
class SendAgain:
    """The same event once more."""

    back: int


@dataclass(frozen=True)
class Void:
    """An event has not happened."""

    back: int


@dataclass(frozen=True)
class Put:
    """A limit is put, or changed."""

    holder: str
    unit: Unit
    groups: tuple[tuple[str, str | None], ...]
    window: str
    amount: Fraction
    enforcement: str


@dataclass(frozen=True)
class Delete:
    """A limit is deleted."""

    back: int


@dataclass(frozen=True)
class Move:
    """A customer gets another parent, or none."""

    customer: str
    parent: str | None


@dataclass(frozen=True)
class ChangePlan:
    """A customer gets another plan, or none."""

    customer: str
    plan: str | None


@dataclass(frozen=True)
class Subscribe:
    """The subscription of a customer begins, changes, or ends: without a plan it has no limits."""

    customer: str
    plan: str | None


@dataclass(frozen=True)
class ChangeZone:
    """A customer gets another time zone, one of ZONES."""

    customer: str
    zone: str


@dataclass(frozen=True)
class PutBalance:
    """A balance of ANN is put, or changed. ends: when its second segment ends, after the start of the story."""

    name: str
    unit: Unit
    amounts: tuple[Fraction, Fraction]
    ends: timedelta
    priority: int
    overdraws: bool


@dataclass(frozen=True)
class Adjust:
    """A balance grants more or less."""

    name: str
    amount: Fraction


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    step: timedelta


_STEPS = [timedelta(seconds=2), timedelta(seconds=7), timedelta(minutes=11), timedelta(hours=1)]
_QUANTITIES = st.sampled_from([0, 1, 3, 5, 8]).map(Fraction)
_COSTS = st.none() | st.integers(0, 12).map(lambda number: Fraction(number, 4))
_BEFORE = st.none() | st.sampled_from([timedelta(), timedelta(minutes=7), timedelta(minutes=70), timedelta(days=1)])
_POLICIES = st.sampled_from([DEFAULT, REJECT, CAP, CAP, OVERFLOW])
_BACK = st.integers(1, 4)
_SECONDS = st.sampled_from([1, 60, 600])
_UNITS = st.sampled_from([CALLS, CALLS, DOLLARS, DOLLARS, REQUESTS])


def _any_of(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One of several, each as often as it is named; `st.one_of` takes each of them once."""
    return st.sampled_from(kinds).flatmap(lambda kind: kind)


def _uses(quantities: st.SearchStrategy[Fraction]) -> st.SearchStrategy[Use]:
    regions = st.none() | st.sampled_from(REGIONS)
    customers = st.sampled_from([ORG, TEAM, ANN, ANN, BOB])
    metrics = st.sampled_from([CALL_METRIC, CALL_METRIC, CALL_METRIC, REQUEST_METRIC])
    plain = st.builds(Use, customers, quantities, _COSTS, regions, _BEFORE, metrics)
    of_subscriptions = st.builds(
        Use, st.sampled_from([ANN, BOB]), quantities, _COSTS, regions, _BEFORE, metrics, st.just(MAIN)
    )
    return _any_of(plain, plain, of_subscriptions)


_REQUESTS = _any_of(
    st.builds(Reserve, _uses(_QUANTITIES), _POLICIES, _SECONDS),
    st.builds(Reserve, _uses(_QUANTITIES), _POLICIES, _SECONDS),
    st.builds(Again, _BACK),
    st.builds(Settle, _BACK, st.none() | _QUANTITIES, _COSTS),
    st.builds(Settle, _BACK, st.none() | _QUANTITIES, st.none()),
    st.builds(Release, _BACK),
    st.builds(Extend, _BACK, _SECONDS),
)
ASKS = st.builds(Ask, st.lists(_REQUESTS, min_size=1, max_size=4).map(tuple))
_PUTS = st.builds(
    Put,
    st.sampled_from([*CUSTOMERS, GOLD, SILVER]),
    _UNITS,
    st.sampled_from([(), (), (("region", None),), (("region", "eu"),)]),
    st.sampled_from([MONTH, MONTH, DAY, HOUR, ROLLING]),
    st.integers(0, 25).map(Fraction),
    st.sampled_from([HARD, HARD, HARD, SOFT, NONE]),
)
_MOVES = _any_of(
    st.builds(Move, st.sampled_from([ANN, BOB]), st.sampled_from([None, ORG, TEAM, TEAM])),
    st.builds(Move, st.just(TEAM), st.sampled_from([None, ORG])),
)
_PLANS = st.sampled_from([None, GOLD, SILVER])
_FACTS = _any_of(
    _MOVES,
    _MOVES,
    st.builds(ChangePlan, st.sampled_from(CUSTOMERS), _PLANS),
    st.builds(Subscribe, st.sampled_from([ANN, BOB]), _PLANS),
    st.builds(ChangeZone, st.sampled_from(CUSTOMERS), st.sampled_from(list(ZONES))),
)
_BALANCES = st.builds(
    PutBalance,
    st.sampled_from(["grant", "commit"]),
    st.sampled_from([CALLS, DOLLARS]),
    st.tuples(st.integers(0, 12).map(Fraction), st.integers(1, 12).map(Fraction)),
    st.sampled_from([timedelta(minutes=5), timedelta(hours=2), timedelta(days=9)]),
    st.integers(0, 2),
    st.booleans(),
)
_CHANGES = _any_of(
    ASKS,
    ASKS,
    ASKS,
    ASKS,
    ASKS,
    ASKS,
    st.builds(Send, _uses(st.integers(-3, 9).map(Fraction)), st.none() | _BACK),
    st.builds(Send, _uses(st.integers(-3, 9).map(Fraction)), st.none()),
    st.builds(SendAgain, _BACK),
    st.builds(Void, _BACK),
    _PUTS,
    _PUTS,
    _PUTS,
    st.builds(Delete, _BACK),
    _FACTS,
    _FACTS,
    _BALANCES,
    st.builds(Adjust, st.sampled_from(["grant", "commit"]), st.integers(-4, 8).map(Fraction)),
    st.builds(
        Wait, st.sampled_from([timedelta(seconds=2), timedelta(seconds=7), timedelta(minutes=11), timedelta(hours=1)])
    ),
)


# So that much is refused, and capped.
_ALWAYS = [
    Put(ORG, CALLS, (), DAY, Fraction(17), HARD),
    Put(TEAM, DOLLARS, (), ROLLING, Fraction(5), HARD),
    Put(GOLD, CALLS, (), MONTH, Fraction(6), HARD),
]


@st.composite
def stories(draw: st.DrawFn, steps: int) -> list[object]:
    """Some limits, a balance, and then as many changes as `steps` says, or half of them."""
    first: list[object] = draw(st.lists(_PUTS, min_size=2, max_size=5))
    second: list[object] = draw(st.lists(_BALANCES, max_size=2))
    return [*_ALWAYS, *first, *second, *draw(st.lists(_CHANGES, min_size=steps // 2, max_size=steps))]
