"""Each aggregation, event by event."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.aggregation import Aggregation, Tally, contribution
from evaluator.amounts import exact_arithmetic

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)

Counted = tuple[str, int, str | None]  # quantity, minutes after noon, unique value


def counted(
    aggregation: Aggregation, events: list[Counted], tally: Tally | None = None, first_number: int = 0
) -> list[str]:
    """The value after each event. Event ids are numbered from `first_number`."""
    tally = tally or Tally(unseen={value for _, _, value in events if value is not None})
    values = []
    with exact_arithmetic():
        for number, (quantity, minutes, unique_value) in enumerate(events, first_number):
            amount = contribution(aggregation, Decimal(quantity))
            tally.add(aggregation, amount, NOON + timedelta(minutes=minutes), f"e{number:06}", unique_value)
            values.append(str(tally.value))
    return values


@pytest.mark.parametrize(
    ("aggregation", "events", "values"),
    [
        ("SUM", [("5", 0, None), ("-7.5", 1, None), ("0", 2, None)], ["5", "-2.5", "-2.5"]),
        ("COUNT", [("5", 0, None), ("-7.5", 1, None), ("0", 2, None), ("-0", 3, None)], ["1", "0", "1", "2"]),
        ("MAX", [("5", 0, None), ("-7", 1, None), ("6", 2, None)], ["5", "5", "6"]),
        ("MAX", [("-5", 0, None), ("-7", 1, None), ("-2", 2, None)], ["-5", "-5", "-2"]),
        ("LATEST", [("5", 0, None), ("7", 2, None), ("6", 1, None)], ["5", "7", "7"]),
        ("LATEST", [("5", 0, None), ("7", 0, None), ("-1", 3, None)], ["5", "7", "-1"]),
        ("UNIQUE_COUNT", [("9", 0, "a"), ("9", 1, "a"), ("-9", 2, "b"), ("9", 3, None)], ["1", "1", "2", "2"]),
    ],
)
def test_each_aggregation_has_the_expected_value_after_each_event(
    aggregation: str, events: list[Counted], values: list[str]
) -> None:
    assert counted(Aggregation(aggregation), events) == values


def test_unique_count_does_not_count_a_value_again() -> None:
    tally = Tally(Decimal(3), unseen={"new"})
    assert counted(Aggregation.UNIQUE_COUNT, [("1", 0, "old"), ("1", 1, "new"), ("1", 2, "new")], tally) == [
        "3",
        "4",
        "4",
    ]


def test_a_tally_continues_from_its_stored_value() -> None:
    earlier = NOON - timedelta(minutes=1)
    assert counted(Aggregation.LATEST, [("7", -2, None)], Tally(Decimal(5), earlier)) == ["5"]
    assert counted(Aggregation.MAX, [("-7", 0, None)], Tally(Decimal(-5), earlier)) == ["-5"]
    assert counted(Aggregation.MAX, [("-7", 0, None)], Tally()) == ["-7"]


quantities = st.integers(-50, 50).map(str)
events = st.lists(st.tuples(quantities, st.integers(0, 30), st.sampled_from([None, "a", "b", "c"])), min_size=1)


@given(st.sampled_from(list(Aggregation)), events, st.integers(0, 20))
def test_events_counted_in_two_parts_give_the_same_values_as_in_one(
    aggregation: Aggregation, events: list[Counted], cut: int
) -> None:
    whole = counted(aggregation, events)
    tally = Tally(unseen={value for _, _, value in events if value is not None})
    before = counted(aggregation, events[:cut], tally)
    assert before + counted(aggregation, events[cut:], tally, first_number=cut) == whole


@given(st.sampled_from(["SUM", "COUNT", "MAX", "UNIQUE_COUNT"]), events)
def test_the_order_of_events_changes_only_the_latest_aggregation(name: str, events: list[Counted]) -> None:
    ordered = sorted(events, key=lambda event: (event[1], event[0], str(event[2])))
    aggregation = Aggregation(name)
    assert Decimal(counted(aggregation, events)[-1]) == Decimal(counted(aggregation, ordered)[-1])


def test_additive_aggregations_can_be_moved_by_a_sum() -> None:
    assert {aggregation for aggregation in Aggregation if aggregation.additive} == {
        Aggregation.SUM,
        Aggregation.COUNT,
    }
