"""Hypothesis strategies of random events and alerts, with few values, so that most of them interact."""

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from hypothesis import strategies as st

from tests.reference.alerts import Alert
from tests.reference.gauges import Event, Fields, Metric, Prices
from tests.reference.thresholds import Threshold

START = datetime(2026, 3, 15, 12, tzinfo=UTC)
AGGREGATIONS = {"sum": "SUM", "count": "COUNT", "max": "MAX", "latest": "LATEST", "unique": "UNIQUE_COUNT"}
# Each aggregation twice: of events that name the metric, and of raw events too.
METRICS = {name: Metric(name, aggregation, "seat") for name, aggregation in AGGREGATIONS.items()} | {
    f"raw {name}": Metric(
        f"raw {name}",
        aggregation,
        "seat",
        event_name="use",
        filters=(("region", True, frozenset()), ("tier", False, frozenset("b"))),
        quantity_property="size",
    )
    for name, aggregation in AGGREGATIONS.items()
}
CUSTOMERS, SUBSCRIPTIONS, PLANS = ("ann", "bob"), (None, "s1"), ("", "gold", "gold")
# Custom fields of subscriptions, and of the contracts that alerts select.
FIELDS: list[Fields] = [frozenset(), frozenset({("team", "x")}), frozenset({("team", "x"), ("tier", "1")})]
DAYS_AGO = (0, 3, 20)  # the last one is in the month before


@dataclass(frozen=True)
class New:
    """A new event; place: the index of its age in DAYS_AGO."""

    event: Event
    place: int


@dataclass(frozen=True)
class Again:
    """An earlier event again, counted from the last one; changed: with other content."""

    back: int
    changed: bool


# Few customers and values, and levels near these values: most events reach thresholds. Weights are repeated elements
# of lists, since Hypothesis counts each alternative of `one_of` only once.
QUANTITIES = [*map(Fraction, range(1, 13)), *map(Fraction, (-9, -6, -3, 0)), Fraction("0.5"), Fraction("1e-18")]
quantities = st.sampled_from(QUANTITIES)
levels = st.sampled_from([*map(Fraction, range(-1, 26)), Fraction("9.999999999999999999")])
kinds = st.sampled_from([frozenset({"REACHED"}), frozenset({"RESOLVED"}), frozenset({"REACHED", "RESOLVED"})])
properties = st.fixed_dictionaries(
    {"region": st.sampled_from(["eu", "us"]), "seat": st.sampled_from("1234")},
    optional={
        "size": st.sampled_from(["3", "-2", "0.5", "7", "11", "x"]),
        "tier": st.sampled_from(["a", "b"]),
        "price_id": st.sampled_from("pq"),
        "item_id": st.just("p"),
    },
)


again: st.SearchStrategy[New | Again] = st.builds(Again, st.integers(1, 12), st.sampled_from([False, False, True]))


@st.composite
def events(draw: st.DrawFn, metric: str) -> New:
    """An event, mostly of that metric."""
    raw = bool(METRICS[metric].event_name) and draw(st.booleans())
    named = "other" if draw(st.integers(0, 9)) == 9 else (METRICS[metric].event_name if raw else metric)
    cost = draw(st.sampled_from([*QUANTITIES, None, None, None]))
    event = Event(
        event_id="",
        customer=draw(st.sampled_from(CUSTOMERS)),
        time=START,
        metric="" if raw else named,
        event_name=named if raw else "",
        quantity=draw(quantities),
        subscription=draw(st.sampled_from(SUBSCRIPTIONS)),
        cost=cost,
        currency=None if cost is None else draw(st.sampled_from(["USD", "USD", "EUR"])),
        properties=tuple(sorted(draw(st.just({}) if draw(st.integers(0, 9)) == 9 else properties).items())),
    )
    return New(event, draw(st.sampled_from([0, 0, 0, 1, 2])))


@st.composite
def threshold_lists(draw: st.DrawFn) -> tuple[Threshold, ...]:
    """The thresholds of an alert."""
    chosen = []
    for value in draw(st.lists(levels, min_size=1, max_size=3, unique=True)):
        gap = draw(st.none() | st.integers(1, 6))
        chosen.append(Threshold(value, resolve=None if gap is None else value - gap, notify_on=draw(kinds)))
    if draw(st.integers(0, 3)) == 3:
        step = Fraction(draw(st.integers(3, 9)))
        chosen = [*chosen[: draw(st.integers(0, 2))], Threshold(step=step, notify_on=draw(kinds))]
    return tuple(draw(st.permutations(chosen)))


# Price filters of alerts on the spend of subscriptions.
PRICES: list[Prices] = [
    frozenset({("price_id", True, frozenset("p"))}),
    frozenset({("price_id", False, frozenset("pr"))}),
    frozenset({("price_id", True, frozenset("pq")), ("item_id", False, frozenset("p"))}),
]

VALUES = {"region": "eu", "tier": "a"}


@st.composite
def overrides(
    draw: st.DrawFn, keys: tuple[tuple[str, str | None], ...]
) -> tuple[tuple[tuple[tuple[str, str], ...], tuple[Threshold, ...]], ...]:
    """Threshold overrides, some without thresholds, for groups with given values of some keys."""
    bound = st.lists(st.sampled_from([key for key, _ in keys]), min_size=1, unique=True).map(
        lambda names: tuple((name, VALUES[name]) for name in names)
    )
    one = st.tuples(bound, threshold_lists() | st.just(()))
    return tuple(draw(st.lists(one, max_size=3, unique_by=lambda item: frozenset(item[0]))))


# Alerts on subscriptions take no values of keys: they use at most the first four.
KEYS: list[tuple[tuple[str, str | None], ...]] = [
    (),
    (),
    (("region", None),),
    (("tier", None), ("region", None)),
    (("region", "eu"),),
    (("tier", None), ("region", "eu")),
]


@st.composite
def new_alerts(draw: st.DrawFn, metric: str) -> Alert:
    """An alert on that metric or on cost, without a name."""
    measure = draw(st.sampled_from([("usage", metric), ("usage", metric), ("cost", "USD")]))
    per_subscription = draw(st.integers(0, 3)) == 3
    customer = draw(st.sampled_from(CUSTOMERS))
    if per_subscription:
        scopes = [("plan", "gold"), ("subscription", customer, "s1"), ("customer plan", customer, "gold")]
        keys = KEYS[:1] if measure[0] == "usage" else KEYS[:4]
    else:
        scopes = [("all",), ("all",), ("plan", "gold"), ("customer", customer), ("customer plan", customer, "gold")]
        keys = KEYS
    scope = draw(st.sampled_from(scopes))
    chosen = draw(st.sampled_from(keys))
    priced = per_subscription and measure[0] == "cost" and draw(st.booleans())
    contracted = measure[0] == "cost" and not per_subscription
    return Alert(
        name="",
        measure=measure,
        per_subscription=per_subscription,
        scope=scope,
        keys=chosen,
        thresholds=draw(threshold_lists()),
        prices=draw(st.sampled_from(PRICES)) if priced else frozenset(),
        overrides=draw(overrides(chosen)) if per_subscription and chosen else (),
        evaluate=draw(st.sampled_from([True, True, False])),
        contract=draw(st.sampled_from(FIELDS)) if contracted else frozenset(),
    )
