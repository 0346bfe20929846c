"""Holds on balances: what they take, keep, give back and become, in special cases and at random."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_holds import (
    HeldPart,
    SegmentKey,
    UnitHold,
    available,
    give_back,
    hold,
    holds_from,
    holds_json,
    settle,
)
from evaluator.balances import HoldingSegment, Unit
from evaluator.drawdown import PastSource, Source, UnitBalances, UsageClass, give_back_voided, in_order

EXAMPLES = 10 * int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "30"))

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def source(
    name: str,
    amount: str,
    *,
    end: datetime | None = None,
    overdraws: bool = False,
    metric: str = "",
) -> Source:
    segment = HoldingSegment(1, Decimal(amount), ZERO, NOON - HOUR, end)
    return Source(name, segment, 0, False, overdraws, frozenset({metric} if metric else ()))


class Purse:
    """Balances in dollars, and short calls."""

    def __init__(self, *sources: Source, overage: str = "0") -> None:
        self.sources = {(one.balance_id, one.segment.number): one for one in sources}
        self.balances = UnitBalances(Unit("USD"), in_order([*sources]), Decimal(overage))

    def available(self, metric: str = "calls", time: datetime = NOON) -> Any:
        with exact_arithmetic():
            return available(self.balances, time, metric)

    def hold(self, amount: str, metric: str = "calls", time: datetime = NOON) -> UnitHold:
        with exact_arithmetic():
            return hold(self.balances, Decimal(amount), time, metric)

    def give_back(self, held: UnitHold, amount: str = "") -> UnitHold:
        with exact_arithmetic():
            return give_back(self.balances, held, Decimal(amount) if amount else held.amount, self.sources)

    def settle(self, held: UnitHold, amount: str, time: datetime = NOON) -> Any:
        with exact_arithmetic():
            draws = settle(self.balances, held, Decimal(amount), time, "calls", (), self.sources)
            found: dict[str, Decimal] = {}
            for one in draws:
                found[one.source.balance_id] = found.get(one.source.balance_id, ZERO) + one.amount
            return found

    def use(self, amount: str) -> None:
        with exact_arithmetic():
            self.balances.draw(Decimal(amount), NOON, "calls")

    @property
    def state(self) -> Any:
        """What is held and drawn of each balance."""
        return {name: (one.segment.held, one.segment.drawn) for (name, _), one in self.sources.items()}

    @property
    def overage(self) -> Any:
        """The overage, and what is held of it."""
        return self.balances.overage, self.balances.held


def shown(held: UnitHold) -> Any:
    return held.credit, parts(held), held.overage


def parts(held: UnitHold) -> Any:
    return [(one.balance_id, one.amount) for one in held.parts]


def test_a_hold_takes_in_the_draw_order_and_usage_goes_around_it() -> None:
    purse = Purse(source("a", "10"), source("b", "5"))
    held = purse.hold("12")
    assert parts(held) == [("a", 10), ("b", 2)]
    assert purse.available() == 3
    purse.use("4")
    assert purse.state == {"a": (10, 0), "b": (2, 3)}
    assert purse.balances.overage == 1
    assert purse.available() == 0


def test_less_gives_the_rest_back_to_the_last_segments() -> None:
    purse = Purse(source("a", "10"), source("b", "5"))
    held = purse.hold("12")
    assert purse.settle(held, "9") == {"a": 9}
    assert purse.state == {"a": (0, 9), "b": (0, 0)}


def test_more_is_drawn_like_other_usage_and_becomes_overage() -> None:
    purse = Purse(source("a", "10"), source("b", "5"))
    held = purse.hold("8")
    assert purse.settle(held, "17") == {"a": 10, "b": 5}
    assert purse.balances.overage == 2


def test_a_correction_ends_a_hold_and_gives_back_what_was_drawn() -> None:
    purse = Purse(source("a", "10"))
    purse.use("3")
    held = purse.hold("5")
    assert purse.settle(held, "-2") == {"a": -2}
    assert purse.state == {"a": (0, 1)}


def test_a_hold_of_a_segment_that_ends_is_drawn_from_it_and_given_back_to_it() -> None:
    purse = Purse(source("a", "10", end=NOON + HOUR), source("b", "5"))
    first, second = purse.hold("4"), purse.hold("5")
    later = NOON + 2 * HOUR
    assert purse.available(time=later) == 5
    assert purse.settle(first, "6", later) == {"a": 4, "b": 2}
    purse.give_back(second)
    assert purse.state == {"a": (0, 4), "b": (0, 2)}


def test_a_part_goes_back_in_the_opposite_order() -> None:
    purse = Purse(source("a", "3"), source("b", "3"), overage="-2")
    held = purse.hold("10")
    assert shown(held) == (2, [("a", 3), ("b", 3)], 2)
    held = purse.give_back(held, "4")
    assert shown(held) == (2, [("a", 3), ("b", 1)], 0)
    held = purse.give_back(held, "5")
    assert shown(held) == (1, [], 0)
    assert purse.give_back(held).amount == 0
    assert purse.state == {"a": (0, 0), "b": (0, 0)}
    assert purse.overage == (-2, 0)


def test_an_overage_below_zero_is_credit_that_is_held_once() -> None:
    purse = Purse(overage="-5")
    first = purse.hold("3")
    assert first.credit == 3
    assert purse.available() == 2
    second = purse.hold("3")
    assert shown(second) == (2, [], 1)
    assert purse.available() == 0
    assert purse.settle(first, "3") == {}
    assert purse.overage == (-2, 2)
    purse.settle(second, "3")
    assert purse.overage == (1, 0)


def test_the_first_segment_that_overdraws_holds_the_rest() -> None:
    purse = Purse(source("a", "2", overdraws=True), source("b", "1"))
    assert purse.available() is None
    held = purse.hold("7")
    assert parts(held) == [("a", 2), ("b", 1), ("a", 4)]
    assert purse.sources["a", 1].segment.remaining == -4
    assert purse.settle(held, "4") == {"a": 3, "b": 1}
    assert purse.state == {"a": (0, 3), "b": (0, 1)}


def test_what_no_segment_gave_is_drawn_from_a_later_grant() -> None:
    purse = Purse(source("a", "2"))
    held = purse.hold("5")
    assert held.overage == 3
    purse.sources["a", 1].segment.granted = Decimal(10)
    assert purse.settle(held, "5") == {"a": 5}
    assert purse.balances.overage == 0


def test_a_grant_that_is_lowered_below_its_hold_gives_nothing_more_and_keeps_the_hold() -> None:
    purse = Purse(source("a", "10"), source("b", "5"))
    held = purse.hold("8")
    purse.sources["a", 1].segment.granted = Decimal(6)
    assert purse.sources["a", 1].segment.remaining == -2
    assert purse.available() == 5
    assert purse.settle(held, "8") == {"a": 8}


def test_credit_of_other_metrics_is_not_available() -> None:
    purse = Purse(source("a", "10", metric="gpu"), source("b", "5"))
    assert (purse.available("calls"), purse.available("gpu")) == (5, 15)
    assert parts(purse.hold("6", "calls")) == [("b", 5)]


def test_voided_usage_does_not_take_what_is_held() -> None:
    """When the first usage is voided, the later one could move into its place, as far as it is not held."""
    with exact_arithmetic():
        purse = Purse(source("a", "10"), source("b", "10"))
        purse.use("6")
        purse.use("8")  # 4 of a, 4 of b
        purse.give_back(purse.hold("1"))
        held = purse.hold("2", time=NOON)
        assert parts(held) == [("b", 2)]
        past = [PastSource(one, NOON) for one in purse.balances.sources]
        classes = [
            UsageClass(Decimal(6), Decimal(6), NOON, NOON, ""),
            UsageClass(Decimal(8), ZERO, NOON, NOON + HOUR, ""),
        ]
        give_back_voided(purse.balances, past, classes)
    assert purse.state == {"a": (0, 8), "b": (2, 0)}


def test_what_is_stored_of_holds_is_the_same() -> None:
    holds = [
        UnitHold(Unit("USD"), (HeldPart("a", 1, Decimal("1.50")), HeldPart("b|\t", 12, Decimal("1E+3"))), Decimal(2)),
        UnitHold(Unit(metric_id="calls"), overage=Decimal("0.000000000000000001")),
    ]
    assert holds_from(holds_json(holds)) == holds
    assert holds_json(holds) == [
        ["cost/USD", "2", "0", [["a", 1, "1.5"], ["b|\t", 12, "1000"]]],
        ["usage/calls", "0", "0.000000000000000001", []],
    ]


AMOUNTS = st.sampled_from([Decimal(text) for text in ("0", "0.1", "1", "2", "3.000000000000000001", "7", "12")])
GRANTS = st.lists(
    st.tuples(AMOUNTS, st.sampled_from([None, 1, 2, 5]), st.booleans(), st.sampled_from(["", "", "calls", "bytes"])),
    max_size=4,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), AMOUNTS, st.integers(0, 5)),
        st.tuples(st.just("correct"), AMOUNTS, st.integers(0, 5)),
        st.tuples(st.just("hold"), AMOUNTS, st.integers(0, 5)),
        st.tuples(st.just("settle"), AMOUNTS, st.integers(0, 5)),
        st.tuples(st.just("release"), AMOUNTS, st.integers(0, 5)),
        st.tuples(st.just("part"), AMOUNTS, st.integers(0, 5)),
        st.tuples(st.just("grant"), AMOUNTS, st.integers(0, 3)),
        st.tuples(st.just("void"), AMOUNTS, st.integers(0, 3)),
        st.tuples(st.just("wait"), AMOUNTS, st.integers(0, 5)),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(grants=GRANTS, steps=STEPS, overage=st.sampled_from(["0", "3", "-4"]))
def test_nothing_is_lost_and_nothing_leaks(
    grants: Sequence[tuple[Decimal, int | None, bool, str]],
    steps: Sequence[tuple[str, Decimal, int]],
    overage: str,
) -> None:
    """What segments hold is what the open holds say, and what they gave and the overage is what was used."""
    purse = Purse(
        *(
            Source(
                f"b{number}",
                HoldingSegment(1, amount, ZERO, NOON - HOUR, None if hours is None else NOON + hours * HOUR),
                number % 2,
                overdraws=overdraws,
                metric_ids=frozenset({metric} if metric else ()),
            )
            for number, (amount, hours, overdraws, metric) in enumerate(grants)
        ),
        overage=overage,
    )
    time, opened, used = NOON, list[UnitHold](), Decimal(overage)
    with exact_arithmetic():
        for what, amount, number in steps:
            metric = ("calls", "bytes")[number % 2]
            which = number % len(opened) if opened else None
            match what:
                case "use" | "correct":
                    net = amount if what == "use" else -amount
                    purse.balances.draw(net, time, metric)
                    used += net
                case "hold":
                    possible = available(purse.balances, time, metric)
                    one = hold(purse.balances, amount, time, metric)
                    assert one.amount == amount
                    assert one.overage == (ZERO if possible is None else max(amount - possible, ZERO))
                    opened.append(one)
                case "settle" if which is not None:
                    drawn = settle(purse.balances, opened.pop(which), amount, time, metric, (), purse.sources)
                    assert sum(one.amount for one in drawn) <= amount
                    used += amount
                case "release" if which is not None:
                    ended = opened.pop(which)
                    assert give_back(purse.balances, ended, ended.amount, purse.sources).amount == 0
                case "part" if which is not None:
                    before = opened[which]
                    opened[which] = give_back(purse.balances, before, min(amount, before.amount), purse.sources)
                    assert opened[which].amount == before.amount - min(amount, before.amount)
                case "grant" if purse.sources:
                    list(purse.sources.values())[number % len(purse.sources)].segment.granted = amount
                case "void" if purse.balances.sources:
                    purse.balances.sources.pop(number % len(purse.balances.sources))
                case "wait":
                    time += HOUR / 2
            check(purse, opened, used)
        for one in opened:
            give_back(purse.balances, one, one.amount, purse.sources)
        check(purse, [], used)


def check(purse: Purse, opened: Sequence[UnitHold], used: Decimal) -> None:
    held: dict[SegmentKey, Decimal] = dict.fromkeys(purse.sources, ZERO)
    for one in opened:
        for part in one.parts:
            assert part.amount > 0
            held[part.key] += part.amount
    segments: Mapping[SegmentKey, HoldingSegment] = {key: one.segment for key, one in purse.sources.items()}
    assert {key: one.held for key, one in segments.items()} == held
    assert purse.balances.held == sum(one.credit for one in opened)
    assert sum((one.drawn for one in segments.values()), purse.balances.overage) == used
    assert all(one.drawn >= 0 for one in segments.values())
    assert all(one.granted == one.remaining + one.held + one.drawn for one in segments.values())


@settings(max_examples=EXAMPLES, deadline=None)
@given(grants=GRANTS, used=st.lists(AMOUNTS, max_size=4), amount=AMOUNTS, overage=st.sampled_from(["0", "3", "-4"]))
def test_a_hold_that_is_settled_in_full_draws_what_usage_draws(
    grants: Sequence[tuple[Decimal, int | None, bool, str]], used: Sequence[Decimal], amount: Decimal, overage: str
) -> None:
    """And one that is given back leaves no trace."""

    def purse() -> Purse:
        sources = (
            Source(f"b{number}", HoldingSegment(1, size, ZERO, NOON, None), overdraws=overdraws)
            for number, (size, _, overdraws, _) in enumerate(grants)
        )
        made = Purse(*sources, overage=overage)
        for one in used:
            made.use(str(one))
        return made

    plain, settled, released = purse(), purse(), purse()
    plain.use(str(amount))
    settled.settle(settled.hold(str(amount)), str(amount))
    assert (settled.state, settled.balances.overage) == (plain.state, plain.balances.overage)
    before = released.state, released.balances.overage
    released.give_back(released.hold(str(amount)))
    assert (released.state, released.balances.overage) == before
    assert released.balances.held == settled.balances.held == 0


VOIDABLE = st.lists(st.tuples(st.integers(-3, 9).filter(bool), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=3),
    before=VOIDABLE,
    held=st.integers(0, 9),
    after=VOIDABLE,
)
def test_voids_beside_a_hold_lose_nothing_and_leave_it(
    sizes: Sequence[tuple[int, bool]],
    before: Sequence[tuple[int, bool]],
    held: int,
    after: Sequence[tuple[int, bool]],
) -> None:
    """Usage before and after a hold, each with whether it is voided; then the hold is settled."""
    sources = (
        Source(f"b{number}", HoldingSegment(1, Decimal(size), ZERO, NOON, None), number, overdraws=overdraws)
        for number, (size, overdraws) in enumerate(sizes)
    )
    purse = Purse(*sources)
    for amount, _ in before:
        purse.use(str(amount))
    one = purse.hold(str(held))
    for amount, _ in after:
        purse.use(str(amount))
    drawn = {key: source.segment.drawn for key, source in purse.sources.items()}
    kept = sum(amount for amount, voided in (*before, *after) if not voided)
    with exact_arithmetic():
        classes = [
            UsageClass(Decimal(amount), Decimal(amount) if voided else ZERO, NOON, NOON, "")
            for amount, voided in (*before, *after)
        ]
        give_back_voided(purse.balances, [PastSource(one, NOON) for one in purse.balances.sources], classes)
        check(purse, [one], Decimal(kept))
        for key, source in purse.sources.items():
            if not source.overdraws:
                assert source.segment.drawn <= max(source.segment.granted - source.segment.held, drawn[key])
    purse.settle(one, str(held))
    check(purse, [], Decimal(kept + held))


def test_a_hold_of_a_segment_that_was_not_read_is_an_error() -> None:
    purse = Purse(source("a", "10"))
    held = purse.hold("1")
    purse.sources.clear()
    with pytest.raises(KeyError):
        purse.give_back(held)
