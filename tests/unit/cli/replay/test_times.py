"""Times in files: forms, units of numbers, and local times when clocks change."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cli.replay.times import TimeReader

BERLIN = ZoneInfo("Europe/Berlin")
TIME = datetime(2023, 11, 16, 18, 17, 3, 979960)  # noqa: DTZ001  # in UTC


@pytest.mark.parametrize(
    "value",
    [
        "2023-11-16T18:17:03.97996Z",
        "2023-11-16 18:17:03.9799600",
        "2023-11-16 18:17:03.979960 UTC",
        "2023-11-16 19:17:03.979960+0100",
        "2023/11/16 18:17:03.979960",
        "1700158623.97996",
        "1700158623979.96",
        "1700158623979960",
        "1700158623979960999",
        TIME,
        TIME.replace(tzinfo=UTC),
        TIME.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=5))),
    ],
)
def test_every_form_is_the_same_time(value: Any) -> None:
    assert TimeReader().read(value) == TIME


@pytest.mark.parametrize(
    "text", ["Thu, 16 Nov 2023 18:17:03 GMT", "16/Nov/2023:18:17:03 +0000", "16/Nov/2023:19:17:03 +0100"]
)
def test_times_of_mails_and_access_logs_are_read(text: str) -> None:
    assert TimeReader().read(text) == TIME.replace(microsecond=0)


@pytest.mark.parametrize(
    "text", ["20260301", "20260301100000", "11/16/2023", "16.11.2023", "1e300", "nan", "soon", ""]
)
def test_what_could_be_another_time_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OverflowError, ArithmeticError)):
        TimeReader().read(text)


def test_times_without_a_zone_are_local_and_the_summary_can_say_which_forms_there_were() -> None:
    reader = TimeReader(BERLIN)
    assert reader.read("2026-07-01 12:00:00") == datetime(2026, 7, 1, 10)  # noqa: DTZ001
    assert reader.read(date(2026, 1, 1)) == datetime(2025, 12, 31, 23)  # noqa: DTZ001
    reader.read("1700158623")
    reader.read("2026-07-01T12:00:00Z")
    assert reader.forms == {"with a zone": 1, "without a zone": 2, "seconds": 1}


def test_a_local_time_that_a_change_of_clocks_repeats_or_skips_has_the_offset_before_it() -> None:
    reader = TimeReader(BERLIN)
    assert reader.read("2026-10-25 02:30:00") == datetime(2026, 10, 25, 0, 30)  # noqa: DTZ001
    assert reader.read("2026-03-29 02:30:00") == datetime(2026, 3, 29, 1, 30)  # noqa: DTZ001
    assert (reader.repeated, reader.skipped) == (1, 1)
