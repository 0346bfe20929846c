"""Plots of the console: their axes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from console.plots.scales import round_ticks, time_ticks

START = datetime(2016, 11, 5, tzinfo=UTC)


def test_an_axis_through_zero_has_no_negative_zero() -> None:
    ticks = round_ticks(Decimal(-13), Decimal(250))
    assert [f"{one:f}" for one in ticks] == ["0", "100", "200"]


@pytest.mark.parametrize(
    ("days", "texts"),
    [
        (1, ["5 Nov", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00", "6 Nov"]),
        (30, ["5 Nov", "10 Nov", "15 Nov", "20 Nov", "25 Nov", "30 Nov", "5 Dec"]),
        (600, ["Nov 2016", "Feb 2017", "May 2017", "Aug 2017", "Nov 2017", "Feb 2018", "May 2018"]),
        (3_652, ["Nov 2016", "Dec 2017", "Jan 2019", "Mar 2020", "Apr 2021", "May 2022", "Jul 2023", "Aug 2024"]),
    ],
)
def test_the_times_of_an_axis_are_hours_days_or_months(days: int, texts: list[str]) -> None:
    ticks = time_ticks(START, START + timedelta(days=days), "UTC")
    assert [text for _, text in ticks][: len(texts)] == texts
    assert len(ticks) <= 10


def test_an_axis_of_a_century_has_marks_to_its_end() -> None:
    end = START + timedelta(days=36_500)
    ticks = time_ticks(START, end, "UTC")
    assert len(ticks) <= 10
    assert end - ticks[-1][0] < timedelta(days=4_100)
