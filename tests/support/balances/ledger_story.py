"""Random stories of two customers and their balances: few amounts and few times, so that most steps interact."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import strategies as st

from tests.reference.balances import Span, Terms, Unit
from tests.reference.facts import ANY_METRIC, PERCENT_REMAINING, REMAINING, FactAlert
from tests.reference.thresholds import BOTH, Threshold

START = datetime(2026, 3, 15, 12, tzinfo=UTC)
CUSTOMERS = ("ann", "bob")
USD, EUR, CALLS, BYTES = ("cost", "USD"), ("cost", "EUR"), ("usage", "calls"), ("usage", "bytes")

# Kind, unit and seat of each balance; they never change.
HELD: list[tuple[str, Unit, tuple[str, str] | None]] = [
    ("COMMIT", USD, None),
    ("COMMIT", USD, None),
    ("COMMIT", USD, None),
    ("CREDIT_GRANT", USD, None),
    ("SEAT_CREDIT", USD, ("seat", "1")),
    ("SEAT_CREDIT", USD, ("seat", "2")),
    ("SEAT_CREDIT", USD, ("team", "x")),
    ("COMMIT", EUR, None),
    ("COMMIT", CALLS, None),
    ("COMMIT", BYTES, None),
    ("SEAT_CREDIT", CALLS, ("seat", "1")),
]
WATCHED: list[tuple[str, Unit, bool, str | None]] = [
    ("COMMIT", USD, False, None),
    ("COMMIT", USD, False, None),
    ("COMMIT", USD, True, None),
    ("COMMIT", USD, True, None),
    ("COMMIT", CALLS, False, None),
    ("COMMIT", CALLS, True, None),
    ("COMMIT", ANY_METRIC, False, None),
    ("COMMIT", ANY_METRIC, True, None),
    ("CREDIT_GRANT", USD, False, None),
    ("CREDIT_GRANT", USD, True, None),
    ("SEAT_CREDIT", USD, False, "seat"),
    ("SEAT_CREDIT", USD, False, "seat"),
]


@dataclass(frozen=True)
class New:
    """An event; after: its time minus the time of the clock."""

    customer: str
    after: timedelta
    metric: str
    quantity: Fraction
    cost: Fraction | None
    currency: str
    properties: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Again:
    """An earlier event again, counted from the last one."""

    back: int


@dataclass(frozen=True)
class Commit:
    events: list[New | Again]


@dataclass(frozen=True)
class Put:
    customer: str
    terms: Terms
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class PutAgain:
    """The balance of an earlier put, with all amounts changed and without the last `fewer` segments."""

    back: int
    amount: Fraction
    fewer: int

    def of(self, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        """The new segments; at least one stays."""
        return tuple((self.amount, start, end) for _, start, end in spans[: max(1, len(spans) - self.fewer)])


@dataclass(frozen=True)
class Adjust:
    customer: str
    name: str
    amount: Fraction
    place: int | None


@dataclass(frozen=True)
class Void:
    customer: str
    name: str


@dataclass(frozen=True)
class Wait:
    step: timedelta


@dataclass(frozen=True)
class Create:
    """An alert; hasty: the next step does not wait for its first evaluation."""

    alert: FactAlert
    hasty: bool


AMOUNTS = [*map(Fraction, (1, 2, 3, 5, 7, 10)), Fraction("0.5"), Fraction("1e-18"), Fraction("3.333333333333333333")]
CORRECTIONS = [-amount for amount in AMOUNTS]
GRANTS = [*map(Fraction, (0, 1, 3, 5, 10, 20, 20, 30)), Fraction("9.999999999999999999")]
HOURS = [-48, -24, -1, 0, 1, 2, 24, 48]
STEPS = [
    *(timedelta(hours=hours) for hours in (1, 1, 2, 22, 70)),
    timedelta(minutes=58),
    timedelta(hours=1) - timedelta(microseconds=1),
    timedelta(microseconds=1),
]
AGES = [
    *[timedelta()] * 6,
    timedelta(minutes=4),
    timedelta(microseconds=-1),
    *(-timedelta(hours=n) for n in (1, 3, 26)),
]

customers = st.sampled_from(CUSTOMERS)
places = st.integers(0, len(HELD) - 1)


def name_of(place: int) -> str:
    """The id of a balance."""
    return f"b{place}"


@st.composite
def spans(draw: st.DrawFn) -> tuple[Span, ...]:
    found = []
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        start = draw(st.sampled_from(HOURS))
        length = draw(st.sampled_from([None, None, 1, 2, 24, 49]))
        begins = START + timedelta(hours=start)
        found.append((draw(st.sampled_from(GRANTS)), begins, begins + timedelta(hours=length) if length else None))
    return tuple(found)


@st.composite
def puts(draw: st.DrawFn) -> Put:
    place = draw(places)
    kind, unit, seat = HELD[place]
    draws = draw(st.sampled_from([True] * 5 + [False]))
    narrowed = draws and unit[0] == "cost"
    terms = Terms(
        name_of(place),
        kind,
        unit,
        priority=draw(st.integers(-1, 1)),
        overdraws=draws and draw(st.sampled_from([False, False, False, True])),
        draws=draws,
        metrics=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"calls"})])) if narrowed else frozenset(),
        seat=seat,
    )
    return Put(draw(customers), terms, draw(spans()))


PROPERTIES: list[tuple[tuple[str, str], ...]] = [
    (),
    (),
    (("seat", "1"),),
    (("seat", "2"),),
    (("seat", "1"), ("team", "x")),
    (("team", "x"),),
]
events: st.SearchStrategy[New | Again] = st.builds(
    New,
    customers,
    st.sampled_from(AGES),
    st.sampled_from(["calls", "calls", "bytes"]),
    st.sampled_from([*AMOUNTS, *CORRECTIONS, Fraction(0)]),
    st.sampled_from([*AMOUNTS * 2, *CORRECTIONS, None]),
    st.sampled_from(["USD", "USD", "USD", "EUR"]),
    st.sampled_from(PROPERTIES),
) | st.builds(Again, st.integers(1, 8))
adjusts = st.builds(
    Adjust,
    customers,
    places.map(name_of),
    st.sampled_from([*GRANTS[1:], *CORRECTIONS, Fraction(-20)]),
    st.sampled_from([None, None, 1, 2, 3]),
)


@st.composite
def alerts(draw: st.DrawFn) -> Create:
    kind, unit, percent, seat_key = draw(st.sampled_from(WATCHED))
    levels: list[int | Fraction] = [-5, 0, 1, 3, 5, 10, 20, 30]
    if percent:
        levels = [0, 10, 25, 50, 75, 100, Fraction("33.333333333333333333")]
    chosen = draw(st.lists(st.sampled_from(levels), min_size=1, max_size=3, unique=True))
    alert = FactAlert(
        name="",
        reading=PERCENT_REMAINING if percent else REMAINING,
        thresholds=tuple(Threshold(Fraction(level), notify_on=BOTH) for level in chosen),
        kinds=frozenset({kind}),
        unit=unit,
        seat_key=seat_key,
    )
    return Create(alert, draw(st.booleans()))


KINDS = [*["commit"] * 8, *["put"] * 4, *["again"] * 2, *["adjust"] * 2, "void", *["wait"] * 4, *["alert"] * 2]


@st.composite
def stories(draw: st.DrawFn) -> list[object]:
    """The steps of a story, in order."""
    story: list[object] = []
    for kind in ["put", "alert", "put", *draw(st.lists(st.sampled_from(KINDS), min_size=6, max_size=18))]:
        if kind == "commit":
            story.append(Commit(draw(st.lists(events, min_size=1, max_size=6))))
        elif kind == "put":
            story.append(draw(puts()))
        elif kind == "again":
            story.append(PutAgain(draw(st.integers(1, 4)), draw(st.sampled_from(GRANTS)), draw(st.integers(0, 2))))
        elif kind == "adjust":
            story.append(draw(adjusts))
        elif kind == "void":
            story.append(Void(draw(customers), name_of(draw(places))))
        elif kind == "wait":
            story.append(Wait(draw(st.sampled_from(STEPS))))
        else:
            story.append(draw(alerts()))
    return story
