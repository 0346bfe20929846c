"""Drawdown of segments and corrections: agreement with the reference model, and special cases."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import HoldingSegment, Unit
from evaluator.drawdown import PastSource, Source, UnitBalances, UsageClass, give_back_voided, in_order
from tests.reference.balances import Terms, Wallet
from tests.reference.gauges import Event

EXAMPLES = 10 * int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "30"))

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
TIMES = [NOON + timedelta(hours=hours) for hours in (-2, -1, 0, 1, 2)]
AMOUNTS = [
    Decimal(text) for text in ("0", "1", "2", "5", "10", "0.1", "3.000000000000000001", "12345678901234567890")
]
METRICS = ("calls", "bytes")


@dataclass(frozen=True)
class Granted:
    """A balance with one segment, from which usage has drawn before."""

    amount: Decimal
    adjusted: Decimal
    taken: Decimal
    start: int
    length: int | None
    priority: int
    seat: bool
    overdraws: bool
    metrics: frozenset[str]


granted = st.builds(
    Granted,
    st.sampled_from(AMOUNTS),
    st.sampled_from([Decimal(0), Decimal(0), *AMOUNTS, *(-amount for amount in AMOUNTS)]),
    st.sampled_from([Decimal(0), Decimal(0), *AMOUNTS]),
    st.integers(0, 3),
    st.sampled_from([None, 1, 2, 4]),
    st.integers(-1, 1),
    st.booleans(),
    st.sampled_from([False, False, True]),
    st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"calls"}), frozenset({"bytes"})]),
)
uses = st.tuples(
    st.sampled_from([*AMOUNTS, *(-amount for amount in AMOUNTS)]),
    st.sampled_from(TIMES),
    st.sampled_from(METRICS),
    st.booleans(),
)


def end_of(one: Granted) -> datetime | None:
    return None if one.length is None else TIMES[one.start] + timedelta(hours=one.length)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    held=st.lists(granted, max_size=5),
    used=st.lists(uses, min_size=1, max_size=12),
    overage=st.sampled_from([Decimal(0), Decimal(4), Decimal(-4)]),
)
def test_drawdown_agrees_with_the_reference_model(
    held: list[Granted], used: list[tuple[Decimal, datetime, str, bool]], overage: Decimal
) -> None:
    plain = Wallet()
    plain.overage["cost", "USD"] = Fraction(overage)
    sources: dict[str, Source] = {}
    seats: set[str] = set()
    for number, one in enumerate(held):
        name = f"b{number}"
        seat = ("seat", "ann") if one.seat else None
        terms = Terms(name, "COMMIT", ("cost", "USD"), one.priority, one.overdraws, True, one.metrics, seat)
        plain.put(terms, [(Fraction(one.amount), TIMES[one.start], end_of(one))])
        plain.balances[name].segments[1].adjusted = Fraction(one.adjusted)
        plain.balances[name].segments[1].drawn = Fraction(one.taken)
        with exact_arithmetic():
            segment = HoldingSegment(1, one.amount + one.adjusted, one.taken, TIMES[one.start], end_of(one))
        sources[name] = Source(name, segment, one.priority, one.seat, one.overdraws, one.metrics)
        if one.seat:
            seats.add(name)
    if not held:
        plain.put(Terms("none", "COMMIT", ("cost", "USD")), [])
    with exact_arithmetic():
        pooled = in_order([source for name, source in sources.items() if name not in seats])
        of_seat = in_order([source for name, source in sources.items() if name in seats])
        purse = UnitBalances(Unit("USD"), pooled, overage)
        for amount, time, metric, seated in used:
            properties = (("seat", "ann"),) if seated else ()
            plain.use(Event("", "", time, metric, Fraction(0), None, Fraction(amount), "USD", properties))
            before = {name: source.segment.drawn for name, source in sources.items()}
            overage_before = purse.overage
            draws = purse.draw(amount, time, metric, of_seat if seated else ())
            # The draws equal the changes of the segments, and no amount is lost.
            moved = dict.fromkeys(sources, Decimal(0))
            for one_draw in draws:
                assert one_draw.amount
                moved[one_draw.source.balance_id] += one_draw.amount
            assert {name: source.segment.drawn - before[name] for name, source in sources.items()} == moved
            assert sum(moved.values(), purse.overage - overage_before) == amount
            assert all(source.segment.drawn >= 0 for source in sources.values())
    assert {name: Fraction(source.segment.drawn) for name, source in sources.items()} == {
        name: drawn for (name, _), drawn in plain.drawn().items()
    }
    assert Fraction(purse.overage) == plain.overage["cost", "USD"]


def source(name: str, amount: str, drawn: str = "0", *, overdraws: bool = False, priority: int = 0) -> Source:
    segment = HoldingSegment(1, Decimal(amount), Decimal(drawn), TIMES[0], None)
    return Source(name, segment, priority, overdraws=overdraws)


def draw(purse: UnitBalances, amount: str) -> dict[str, Decimal]:
    with exact_arithmetic():
        draws = purse.draw(Decimal(amount), NOON, "calls")
        found: dict[str, Decimal] = {}
        for one in draws:
            found[one.source.balance_id] = found.get(one.source.balance_id, Decimal(0)) + one.amount
        return found


def test_a_correction_gives_back_to_the_overage_and_to_several_segments() -> None:
    purse = UnitBalances(Unit("USD"), [source("a", "10"), source("b", "5")])
    assert draw(purse, "18") == {"a": 10, "b": 5}
    assert purse.overage == 3
    assert draw(purse, "-4") == {"b": -1}
    assert purse.overage == 0
    assert draw(purse, "-7") == {"b": -4, "a": -3}
    assert draw(purse, "1") == {"a": 1}


def test_costs_below_zero_are_used_up_before_balances() -> None:
    purse = UnitBalances(Unit("USD"), [source("a", "10")])
    assert draw(purse, "-3") == {}
    assert purse.overage == -3
    assert draw(purse, "5") == {"a": 2}
    assert purse.overage == 0


def test_a_correction_gives_back_no_more_than_usage_took() -> None:
    """The segment is far below zero after an adjustment."""
    purse = UnitBalances(Unit("USD"), [source("a", "-90", "10", overdraws=True)])
    assert draw(purse, "-50") == {"a": -10}
    assert purse.overage == -40
    assert purse.sources[0].segment.drawn == 0


def test_the_first_overdrawn_segment_takes_the_rest_and_is_given_back_to_first() -> None:
    purse = UnitBalances(Unit("USD"), [source("a", "10", overdraws=True), source("b", "5", overdraws=True)])
    assert draw(purse, "20") == {"a": 15, "b": 5}
    assert draw(purse, "-7") == {"a": -5, "b": -2}


def test_segments_are_drawn_in_the_draw_order() -> None:
    early, late = (TIMES[0] + timedelta(days=days) for days in (1, 2))
    segments = {
        "seat": Source("seat", HoldingSegment(1, Decimal(1), Decimal(0), TIMES[0], None), 9, of_seat=True),
        "low": Source("low", HoldingSegment(1, Decimal(1), Decimal(0), TIMES[0], None), -1),
        "early": Source("early", HoldingSegment(1, Decimal(1), Decimal(0), TIMES[0], early)),
        "late": Source("late", HoldingSegment(1, Decimal(1), Decimal(0), TIMES[0], late)),
        "never": Source("never", HoldingSegment(1, Decimal(1), Decimal(0), TIMES[0], None)),
    }
    assert [one.balance_id for one in in_order([*segments.values()][::-1])] == list(segments)


STATIC = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=3)
USAGE = st.lists(st.tuples(st.integers(-4, 9).filter(bool), st.booleans()), min_size=1, max_size=10)


@given(STATIC, USAGE)
def test_voided_usage_leaves_what_the_other_usage_draws(
    static: list[tuple[int, bool]], usage: list[tuple[int, bool]]
) -> None:
    """Where all usage may draw on all segments; each amount says whether it is voided."""

    def drawn_by(amounts: list[int]) -> UnitBalances:
        sources = [
            Source(f"b{number}", HoldingSegment(1, Decimal(amount), ZERO, NOON, None), number, overdraws=overdraws)
            for number, (amount, overdraws) in enumerate(static)
        ]
        balances = UnitBalances(Unit("USD"), in_order(sources))
        for amount in amounts:
            balances.draw(Decimal(amount), NOON, "calls")
        return balances

    with exact_arithmetic():
        every = drawn_by([amount for amount, _ in usage])
        before = [one.segment.drawn for one in every.sources]
        total = Decimal(sum(amount for amount, _ in usage))
        voided = Decimal(sum(amount for amount, taken_back in usage if taken_back))
        past = [PastSource(one, NOON) for one in every.sources]
        back = give_back_voided(every, past, [UsageClass(total, voided, NOON, NOON, "")])
        rest = drawn_by([amount for amount, taken_back in usage if not taken_back])
        after = [one.segment.drawn for one in every.sources]
        assert (after, every.overage) == ([one.segment.drawn for one in rest.sources], rest.overage)
        assert after == [drawn - back.get(one, ZERO) for one, drawn in zip(past, before, strict=True)]
