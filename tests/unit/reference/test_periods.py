"""The periods of the reference model are those of the evaluator."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from evaluator.periods import BillingCycle, Cadence
from tests.reference.periods import Cycle, Periods, month_of_end


@given(
    anchor=st.integers(0, 2_500),
    cadence=st.sampled_from(["day", "week", "month"]),
    interval=st.integers(1, 5),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    hours=st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=5),
)
def test_the_periods_are_those_of_the_evaluator(
    anchor: int, cadence: str, interval: int, zone: str, hours: list[int]
) -> None:
    start = datetime(2020, 1, 1, 2, 30, tzinfo=UTC) + timedelta(days=anchor)
    ours = Periods(Cycle(start, cadence, interval, zone))
    theirs = BillingCycle(start, Cadence(cadence), interval, zone)
    for offset in hours:
        time = start + timedelta(hours=offset)
        assert ours.start_of(time) == theirs.period_at(time).start


def test_a_period_that_ends_at_the_start_of_a_month_belongs_to_the_month_before() -> None:
    first = datetime(2026, 3, 1, tzinfo=UTC)
    assert month_of_end(first) == datetime(2026, 2, 1, tzinfo=UTC)
    assert month_of_end(first + timedelta(microseconds=1)) == first
