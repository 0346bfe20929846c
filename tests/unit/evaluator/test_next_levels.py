"""The level that a value reaches next."""

from decimal import Decimal

import pytest

from evaluator.amounts import exact_arithmetic
from evaluator.thresholds import Direction, Threshold, ThresholdSet

TEN, TWENTY, STEP = Threshold(Decimal(10)), Threshold(Decimal(20)), Threshold(recurring_step=Decimal(5))
HALF = Threshold(percent_of_limit=Decimal(50))


def next_level(
    direction: Direction, thresholds: tuple[Threshold, ...], value: str, *reached: str, limit: str | None = None
) -> str | None:
    with exact_arithmetic():
        all_of_them = ThresholdSet.of(thresholds, direction).with_limit(None if limit is None else Decimal(limit))
        level = all_of_them.next_level(Decimal(value), reached)
    return None if level is None else str(level)


@pytest.mark.parametrize(
    ("thresholds", "value", "expected"),
    [
        ((TEN, TWENTY), "-1", "10"),
        ((TEN, TWENTY), "10", "20"),
        ((TEN, TWENTY), "20", None),
        ((TEN, STEP), "10", "15"),
        ((TEN, STEP), "15", "20"),
        ((STEP,), "-3", "5"),
        ((), "1", None),
    ],
)
def test_next_level_of_a_rising_value_is_the_nearest_above_it(
    thresholds: tuple[Threshold, ...], value: str, expected: str | None
) -> None:
    assert next_level(Direction.RISING, thresholds, value) == expected


@pytest.mark.parametrize(("value", "expected"), [("30", "20"), ("20", "10"), ("10.5", "10"), ("10", None)])
def test_next_level_of_a_falling_value_is_the_nearest_below_it(value: str, expected: str | None) -> None:
    assert next_level(Direction.FALLING, (TEN, TWENTY), value) == expected


def test_next_level_leaves_out_a_threshold_that_is_still_reached_below_its_level() -> None:
    lingering = Threshold(Decimal(10), resolve_value=Decimal(5))
    assert next_level(Direction.RISING, (lingering, TWENTY), "7") == "10"
    assert next_level(Direction.RISING, (lingering, TWENTY), "7", lingering.key) == "20"


def test_next_level_of_a_percentage_needs_the_limit() -> None:
    assert next_level(Direction.RISING, (HALF, TWENTY), "0") == "20"
    assert next_level(Direction.RISING, (HALF, TWENTY), "0", limit="30") == "15.00"
