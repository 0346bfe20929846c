"""The pace of backfills: the size of steps and the pauses between them."""

import pytest

from engine.backfill.pace import Pace, StepSize
from engine.limits import BackfillLimits

LIMITS = BackfillLimits(first_size=100, fast_step_seconds=0.1, slow_step_seconds=0.5, busy_share=0.25)


def sizes(*seconds: float, largest: int = 400) -> list[int]:
    """The sizes after steps that took so many seconds."""
    size = StepSize(LIMITS, largest)
    found = []
    for one in seconds:
        size.took(one)
        found.append(size.size)
    return found


def test_step_size_grows_after_fast_steps_up_to_the_largest() -> None:
    assert sizes(0.05, 0.05, 0.05, 0.2) == [200, 400, 400, 400]


def test_step_size_is_halved_while_smaller_steps_are_faster() -> None:
    assert sizes(8, 4, 2, 1, 0.5) == [50, 25, 12, 6, 6]
    assert sizes(*(2.0**-number * 1000 for number in range(9)))[-1] == 1


def test_step_size_returns_where_a_smaller_step_was_not_faster() -> None:
    assert sizes(2, 2, 2, 3, 9, 4) == [50, 100, 100, 100, 50, 50]


def test_step_size_is_halved_after_a_failure_and_recovers() -> None:
    size = StepSize(LIMITS, 400)
    size.failed()
    assert size.size == 50
    assert size.reduced
    for _ in range(6):
        size.failed()
    assert size.size == 1
    for expected in (2, 4, 8):
        size.took(0)
        assert size.size == expected
    for _ in range(6):
        size.took(0)
    assert size.size == 400
    assert not size.reduced


def test_step_that_was_cut_is_followed_by_one_of_about_what_fitted() -> None:
    size = StepSize(LIMITS, 400)
    size.cut(80)
    assert size.size == 100
    size.cut(20)
    assert size.size == 40
    size.cut(0)
    assert size.size == 2  # a step of one customer is for those that fail


@pytest.mark.parametrize(("busy", "pause"), [(True, 0.3), (False, 0.0)])
def test_backfills_pause_only_while_usage_is_counted(busy: bool, pause: float) -> None:
    pace = Pace(LIMITS, lambda: busy)
    pace.begin()
    assert pace.pause_after(0.1) == pytest.approx(pause)
    assert pace.pause_after(100) == (LIMITS.longest_pause if busy else 0)


def test_backfills_pause_after_a_round_at_whose_beginning_usage_was_counted() -> None:
    answers = [True, False]
    pace = Pace(LIMITS, lambda: answers.pop(0))
    pace.begin()
    assert pace.pause_after(0.1) > 0
