"""Transitions: when a threshold is reached and resolved, and that each is notified once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.amounts import exact_arithmetic
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import AlertState, Cause, Evaluation, Step, evaluate, silent_state, trip_levels

NOW = datetime(2026, 3, 15, tzinfo=UTC)


def threshold_set(*values: str, step: str | None = None, direction: Direction = Direction.RISING) -> ThresholdSet:
    thresholds = tuple(Threshold(Decimal(value)) for value in values)
    if step is not None:
        thresholds += (Threshold(recurring_step=Decimal(step)),)
    return ThresholdSet.of(thresholds, direction)


def follow(
    thresholds: ThresholdSet, values: Sequence[str], start: str = "0", state: AlertState | None = None
) -> Evaluation:
    steps = [Step(Decimal(value), Cause(f"e{index}", NOW)) for index, value in enumerate(values)]
    with exact_arithmetic():
        return evaluate(thresholds, state or AlertState(), Decimal(start), steps, NOW)


def notified(evaluation: Evaluation) -> list[tuple[str, str]]:
    return [(transition.kind.value, str(transition.level)) for transition in evaluation.transitions]


@pytest.mark.parametrize(
    ("direction", "start", "before", "at", "past"),
    [(Direction.RISING, "0", "99.99", "100", "100.01"), (Direction.FALLING, "500", "100.01", "100", "99.99")],
)
def test_a_threshold_is_reached_at_its_level_and_beyond_and_not_before(
    direction: Direction, start: str, before: str, at: str, past: str
) -> None:
    thresholds = threshold_set("100", direction=direction)
    assert notified(follow(thresholds, [before], start)) == []
    assert notified(follow(thresholds, [at], start)) == [("REACHED", "100")]
    assert notified(follow(thresholds, [past], start)) == [("REACHED", "100")]


def test_a_value_that_stays_at_a_level_notifies_once() -> None:
    assert notified(follow(threshold_set("100"), ["100", "150", "9999"])) == [("REACHED", "100")]


def test_up_and_down_are_both_reported_in_the_order_of_the_events() -> None:
    evaluation = follow(threshold_set("100"), ["120", "80", "130"])
    assert notified(evaluation) == [("REACHED", "100"), ("RESOLVED", "100"), ("REACHED", "100")]
    assert [item.cause.event_id for item in evaluation.transitions if item.cause] == ["e0", "e1", "e2"]
    assert evaluation.state.in_alarm


@pytest.mark.parametrize(
    ("direction", "start", "value", "levels"),
    [(Direction.RISING, "0", "90", ["50", "70", "90"]), (Direction.FALLING, "100", "50", ["90", "70", "50"])],
)
def test_a_jump_over_several_thresholds_reports_all_and_marks_the_furthest(
    direction: Direction, start: str, value: str, levels: list[str]
) -> None:
    evaluation = follow(threshold_set("70", "50", "90", direction=direction), [value], start)
    assert [str(item.level) for item in evaluation.transitions] == levels
    assert [item.furthest for item in evaluation.transitions] == [False, False, True]


def test_recurrences_start_at_the_furthest_fixed_threshold_and_are_reached_once() -> None:
    thresholds = threshold_set("500", "1000", step="200")
    first = follow(thresholds, ["1199.99"])
    assert notified(first) == [("REACHED", "500"), ("REACHED", "1000")]
    second = follow(thresholds, ["1200"], "1199.99", first.state)
    assert notified(second) == [("REACHED", "1200")]
    assert notified(follow(thresholds, ["1200"], "1200", second.state)) == []
    assert notified(follow(thresholds, ["1650"], "1200", second.state)) == [("REACHED", "1400"), ("REACHED", "1600")]


def test_only_a_recurring_threshold_counts_from_zero() -> None:
    assert notified(follow(threshold_set(step="10"), ["9", "10", "31"])) == [
        ("REACHED", "10"),
        ("REACHED", "20"),
        ("REACHED", "30"),
    ]


def test_a_jump_over_a_million_recurrences_reports_the_last_twenty() -> None:
    levels = [level for _, level in notified(follow(threshold_set(step="1"), ["1000000"]))]
    assert levels == [str(level) for level in range(999_981, 1_000_001)]


def test_recurrences_resolve_from_the_furthest_and_before_the_fixed_thresholds() -> None:
    thresholds = threshold_set("10", step="5")
    up = follow(thresholds, ["21"])
    assert notified(follow(thresholds, ["9"], "21", up.state)) == [
        ("RESOLVED", "20"),
        ("RESOLVED", "15"),
        ("RESOLVED", "10"),
    ]


def test_hysteresis_waits_for_the_resolve_value() -> None:
    threshold = Threshold(Decimal(100), resolve_value=Decimal(80))
    thresholds = ThresholdSet.of((threshold,), Direction.RISING)
    assert notified(follow(thresholds, ["100", "99", "81", "100", "80"])) == [("REACHED", "100"), ("RESOLVED", "100")]


def test_a_threshold_reached_silently_resolves_silently() -> None:
    thresholds = threshold_set("50", "100", step="10")
    with exact_arithmetic():
        silent = silent_state(thresholds, Decimal(125), NOW)
    evaluation = follow(thresholds, ["131", "99", "40", "60"], "125", silent)
    assert notified(evaluation) == [("REACHED", "130"), ("RESOLVED", "130"), ("REACHED", "50")]


def test_only_kinds_of_notify_on_are_notified_and_all_are_recorded() -> None:
    threshold = Threshold(Decimal(1), notify_on=frozenset({TransitionKind.RESOLVED}))
    evaluation = follow(ThresholdSet.of((threshold,), Direction.RISING), ["1", "0"])
    assert [(item.kind, item.notified) for item in evaluation.transitions] == [
        (TransitionKind.REACHED, False),
        (TransitionKind.RESOLVED, True),
    ]


@pytest.mark.parametrize("level", ["0", "-5", "0.000000000000000001", "12345678901234567890.123456789012345678"])
def test_levels_of_every_size_are_exact(level: str) -> None:
    value = Decimal(level)
    with exact_arithmetic():
        below = str(value - Decimal("0.000000000000000001"))
    assert notified(follow(threshold_set(level), [below], below)) == []
    assert [item.level for item in follow(threshold_set(level), [level], below).transitions] == [value]


def test_recurrences_resolve_and_are_reached_again_when_their_base_moves() -> None:
    before = threshold_set("5", step="10")
    state = follow(before, ["30"]).state
    assert before.recurring is not None
    retired = {threshold.key: threshold for threshold in (*before.fixed, before.recurring)}
    with exact_arithmetic():
        up = [Step(Decimal(30), None)]
        evaluation = evaluate(threshold_set("5", "20", step="10"), state, Decimal(30), up, NOW, retired)
    assert [(item.kind.value, str(item.level)) for item in evaluation.transitions] == [
        ("RESOLVED", "25"),
        ("REACHED", "20"),
        ("REACHED", "30"),
    ]
    assert notified(follow(threshold_set("5", "20", step="10"), ["31", "19"], "30", evaluation.state)) == [
        ("RESOLVED", "30"),
        ("RESOLVED", "20"),
    ]


def test_a_removed_threshold_does_not_notify() -> None:
    state = follow(threshold_set("5", "10"), ["20"]).state
    evaluation = follow(threshold_set("10"), ["20"], "20", state)
    assert notified(evaluation) == []
    assert set(evaluation.state.reached) == {"10"}


def test_the_furthest_resolved_threshold_of_one_step_is_the_lowest() -> None:
    thresholds = threshold_set("10", "20")
    evaluation = follow(thresholds, ["0"], "30", follow(thresholds, ["30"]).state)
    assert [(str(item.level), item.furthest) for item in evaluation.transitions] == [
        ("20", False),
        ("10", True),
    ]


amounts = st.decimals(-60, 60, places=1)
directions = st.sampled_from(Direction)


@given(
    st.sets(amounts, min_size=0, max_size=5),
    st.none() | st.decimals("0.1", 30, places=1),
    st.lists(amounts),
    directions,
)
def test_transitions_agree_with_a_model_without_state(
    fixed: set[Decimal], step: Decimal | None, path: list[Decimal], direction: Direction
) -> None:
    """The model has no state: each threshold is reached or not, and a transition is a change of that."""
    made = threshold_set(*map(str, fixed), step=None if step is None else str(step), direction=direction)
    evaluation = follow(made, [str(value) for value in path], start=str(path[0]) if path else "0")
    sign = 1 if direction is Direction.RISING else -1
    base = max((sign * value for value in fixed), default=Decimal(0))
    levels = [sign * value for value in fixed]
    if step is not None:
        levels += [base + step * number for number in range(1, 2000)]
    expected: list[tuple[str, Decimal]] = []
    past: set[Decimal] = set()
    for value in path:
        now_past = {level for level in levels if sign * value >= level}
        recurrences_reached = sorted(level for level in now_past - past if level > base)[-20:]
        recurrences_resolved = sorted((level for level in past - now_past if level > base), reverse=True)[:20]
        expected += [("RESOLVED", sign * level) for level in recurrences_resolved]
        expected += [
            ("RESOLVED", sign * level)
            for level in sorted(past - now_past, reverse=True)
            if level <= base and level in [sign * value for value in fixed]
        ]
        expected += [
            ("REACHED", sign * level)
            for level in sorted(now_past - past)
            if level in [sign * value for value in fixed] and level <= base
        ]
        expected += [("REACHED", sign * level) for level in recurrences_reached]
        past = now_past
    assert [(item.kind.value, item.level) for item in evaluation.transitions] == expected


@given(
    st.sets(amounts, max_size=5),
    st.none() | st.decimals("0.1", 30, places=1),
    st.lists(amounts, min_size=1),
    amounts,
    directions,
)
def test_a_value_between_the_trip_levels_makes_no_transition(
    fixed: set[Decimal], step: Decimal | None, path: list[Decimal], value: Decimal, direction: Direction
) -> None:
    made = threshold_set(*map(str, fixed), step=None if step is None else str(step), direction=direction)
    state = follow(made, [str(item) for item in path]).state
    with exact_arithmetic():
        above, below = trip_levels(made, state)
    evaluation = follow(made, [str(value)], str(path[-1]), state)
    if evaluation.transitions:
        assert (above is not None and value >= above) or (below is not None and value <= below)
