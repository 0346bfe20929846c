"""The wait that a receiver asks for with Retry-After."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.retry_after import MAX_RETRY_AFTER, asked_wait, parse_retry_after

NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("0", timedelta(0)),
        (" 120 ", timedelta(seconds=120)),
        ("9" * 40, MAX_RETRY_AFTER),
        ("Sun, 15 Mar 2026 12:01:30 GMT", timedelta(seconds=90)),
        ("Sunday, 15-Mar-26 12:01:30 GMT", timedelta(seconds=90)),
        ("Sun, 15 Mar 2026 12:01:30 -0000", timedelta(seconds=90)),
        ("Sun, 15 Mar 2026 11:00:00 GMT", timedelta(0)),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, expected: timedelta | None) -> None:
    assert parse_retry_after(header, NOW) == expected


@given(st.text())
def test_no_retry_after_breaks_anything(header: str) -> None:
    wait = parse_retry_after(header, NOW)
    assert wait is None or wait >= timedelta(0)


SKEWED = "Sun, 15 Mar 2026 09:00:00 GMT"  # three hours behind NOW


@pytest.mark.parametrize(
    ("headers", "dates", "expected"),
    [
        ([], [], None),
        (["10"], [], timedelta(seconds=10)),
        (["10", "30", "20"], [], timedelta(seconds=30)),
        (["soon", "30"], [], timedelta(seconds=30)),
        (["soon", "-5"], [], None),
        (["0", "Sun, 15 Mar 2026 12:01:30 GMT"], [], timedelta(seconds=90)),
        # By the clock of the receiver, which is wrong.
        (["Sun, 15 Mar 2026 09:01:30 GMT"], [SKEWED], timedelta(seconds=90)),
        (["Sun, 15 Mar 2026 08:00:00 GMT"], [SKEWED], timedelta(0)),
        (["120"], [SKEWED], timedelta(seconds=120)),
        # What cannot be its clock is left out.
        (["Sun, 15 Mar 2026 12:01:30 GMT"], ["today"], timedelta(seconds=90)),
        (["Sun, 15 Mar 2026 12:01:30 GMT"], [SKEWED, SKEWED], timedelta(seconds=90)),
    ],
)
def test_the_wait_of_all_headers(headers: list[str], dates: list[str], expected: timedelta | None) -> None:
    assert asked_wait(headers, dates, NOW) == expected
