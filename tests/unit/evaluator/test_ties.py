"""The order of equals: thresholds at one level, segments that end together, recurrences that were reached before."""

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import HoldingSegment
from evaluator.drawdown import Source, in_order
from evaluator.gauges import Gauge, Measure
from evaluator.notifications import Notification
from evaluator.overrides import MostSpecific
from evaluator.periods import DEFAULT_CYCLE
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import AlertState, Evaluation, Reached, Step, evaluate, silent_state

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
BOTH = frozenset(TransitionKind)


def follow(
    threshold_set: ThresholdSet,
    values: Sequence[str],
    state: AlertState | None = None,
    start: str = "0",
    *retired: Threshold,
) -> Evaluation:
    steps = [Step(Decimal(value), None) for value in values]
    gone = {threshold.key: threshold for threshold in retired}
    with exact_arithmetic():
        return evaluate(threshold_set, state or AlertState(), Decimal(start), steps, NOW, gone)


def notified(evaluation: Evaluation) -> list[tuple[str, str, bool]]:
    return [(one.kind.value, one.threshold.key, one.furthest) for one in evaluation.transitions]


def test_the_last_of_several_thresholds_at_one_level_is_marked_as_the_furthest() -> None:
    thresholds = (Threshold(Decimal(80), notify_on=BOTH), Threshold(percent_of_limit=Decimal(80), notify_on=BOTH))
    with exact_arithmetic():
        threshold_set = ThresholdSet.of(thresholds, Direction.RISING).with_limit(Decimal(100))
    found = follow(threshold_set, ["90"])
    assert notified(found) == [("REACHED", "80", False), ("REACHED", "limit:80", True)]
    back = follow(threshold_set, ["10"], found.state, "90")
    assert notified(back) == [("RESOLVED", "limit:80", False), ("RESOLVED", "80", True)]


def test_a_recurrence_is_further_than_a_fixed_threshold_at_the_same_level_and_resolves_first() -> None:
    thresholds = (
        Threshold(Decimal(100), notify_on=BOTH),
        Threshold(percent_of_limit=Decimal(120), notify_on=BOTH),
        Threshold(recurring_step=Decimal(20), notify_on=BOTH),
    )
    with exact_arithmetic():
        threshold_set = ThresholdSet.of(thresholds, Direction.RISING).with_limit(Decimal(100))
    step = thresholds[2].key
    found = follow(threshold_set, ["125"])
    assert notified(found) == [("REACHED", "100", False), ("REACHED", "limit:120", False), ("REACHED", step, True)]
    back = follow(threshold_set, ["110"], found.state, "125")
    assert notified(back) == [("RESOLVED", step, False), ("RESOLVED", "limit:120", True)]


@pytest.mark.parametrize("direction", Direction)
def test_a_swing_marks_the_last_of_the_transitions_at_the_furthest_level(direction: Direction) -> None:
    threshold_set = ThresholdSet.of((Threshold(Decimal(10), notify_on=BOTH),), direction)
    over, back = ("11", "9") if direction is Direction.RISING else ("9", "11")
    found = follow(threshold_set, [over, back, over, back], start=back)
    assert [(one.kind, one.furthest) for one in found.transitions] == [
        (TransitionKind.REACHED, False),
        (TransitionKind.RESOLVED, False),
        (TransitionKind.REACHED, True),
        (TransitionKind.RESOLVED, True),
    ]


def test_a_notification_of_a_swing_shows_the_value_before_the_first_and_after_the_last() -> None:
    threshold_set = ThresholdSet.of(
        (Threshold(Decimal(10), notify_on=BOTH), Threshold(Decimal(20))), Direction.RISING
    )
    measure = Measure(metric_id="calls")
    rule = AlertRule(
        *("alt", "alert", 1, ConditionType.USAGE_THRESHOLD_REACHED, Scope(ScopeKind.ALL_CUSTOMERS), measure, ()),
        *(threshold_set, True, 1, 1, NOW),
    )
    gauge = Gauge("acme", None, measure, (), DEFAULT_CYCLE.period_at(NOW))
    found = follow(threshold_set, ["15", "7", "25"], start="3")
    body = json.loads(Notification("o", rule, gauge, 1, NOW, False, found.transitions).body())
    assert (body["data"]["previous_value"], body["data"]["value"]) == ("3", "25")
    steps = [(one["previous_value"], one["value"]) for one in body["data"]["transitions"]]
    assert steps == [("3", "15"), ("15", "7"), ("7", "25"), ("7", "25")]


RUNGS = Threshold(recurring_step=Decimal(100), notify_on=BOTH)


def levels(evaluation: Evaluation) -> list[tuple[str, int]]:
    return [(one.kind.value, int(one.level)) for one in evaluation.transitions]


@pytest.mark.parametrize("sign", [1, -1])
def test_recurrences_reached_silently_notify_when_they_are_reached_again(sign: int) -> None:
    direction = Direction.RISING if sign > 0 else Direction.FALLING
    threshold_set = ThresholdSet.of((RUNGS,), direction)
    with exact_arithmetic():
        silent = silent_state(threshold_set, Decimal(350 * sign), NOW)
    assert silent.reached == {RUNGS.key: Reached(Decimal(300 * sign), NOW, True, 3, 3)}
    down = follow(threshold_set, [f"{150 * sign}"], silent, f"{350 * sign}")
    assert levels(down) == []
    assert down.state.reached == {RUNGS.key: Reached(Decimal(100 * sign), NOW, True, 1, 1)}
    up = follow(threshold_set, [f"{350 * sign}"], down.state, f"{150 * sign}")
    assert levels(up) == [("REACHED", 200 * sign), ("REACHED", 300 * sign)]
    assert up.state.reached == {RUNGS.key: Reached(Decimal(300 * sign), NOW, False, 3, 1)}
    # The two notified recurrences resolve, and the silent one does not.
    gone = follow(threshold_set, ["0"], up.state, f"{350 * sign}")
    assert levels(gone) == [("RESOLVED", 300 * sign), ("RESOLVED", 200 * sign)]
    assert gone.state == AlertState()
    assert levels(follow(threshold_set, [f"{100 * sign}"], gone.state)) == [("REACHED", 100 * sign)]


def test_recurrences_that_are_all_silent_end_silently_and_others_resolve() -> None:
    threshold_set, other = ThresholdSet.of((RUNGS,), Direction.RISING), ThresholdSet.of((), Direction.RISING)
    with exact_arithmetic():
        silent = silent_state(threshold_set, Decimal(350), NOW)
    fewer = follow(threshold_set, ["250"], silent, "350").state
    assert levels(follow(other, [], fewer, "250", RUNGS)) == []
    more = follow(threshold_set, ["450"], silent, "350").state
    assert levels(follow(other, [], more, "450", RUNGS)) == [("RESOLVED", 400)]


def source(name: str, *, seat: bool = False, priority: int = 0, end: int | None = None, start: int = 0) -> Source:
    ends = None if end is None else NOW + end * DAY
    return Source(name, HoldingSegment(1, ZERO, ZERO, NOW + start * DAY, ends), priority, of_seat=seat)


def test_segments_are_drawn_in_one_order_however_they_are_listed() -> None:
    expected = [
        source("z", seat=True, priority=9),
        source("y", priority=-1),
        source("x", end=1, start=-1),
        source("w", end=1),
        source("v", end=2, start=-5),
        source("a"),
        source("b"),
    ]
    expected.append(Source("b", HoldingSegment(2, ZERO, ZERO, NOW, None)))
    for some in itertools.combinations(expected, 4):
        for shuffled in itertools.permutations(some):
            assert in_order(shuffled) == list(some)


def test_the_first_of_two_overrides_with_the_same_keys_is_found() -> None:
    group = (("region", "eu"),)
    bound = [(group, "first"), (group, "second"), ((), "all"), ((), "all again")]
    assert MostSpecific(bound).find(group) == "first"
    assert MostSpecific(bound).find((("region", "us"),)) == "all"
    assert MostSpecific(bound[::-1]).find(group) == "second"
