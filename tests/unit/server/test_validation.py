"""Checks of fields: each type of field at its bounds, and all violations in one answer."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from server.calls.errors import InvalidArgument
from server.calls.validation import Violations, currency_problem, id_problem, time_problem, to_datetime, to_timestamp

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["a", "x" * 128, "ä" * 128, "a b", "acme/1:2", "😀", "a\\b", 'a"b', "-"])
def test_a_valid_id_is_accepted(text: str) -> None:
    assert id_problem(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("x" * 129, "at most 128"),
        (" a", "space"),
        ("a ", "space"),
        ("a\u00a0", "space"),
        ("\u2003a", "space"),
        (" ", "space"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\tb", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
    ],
)
def test_an_invalid_id_is_a_violation(text: str, says: str) -> None:
    assert says in (id_problem(text) or "")


@pytest.mark.parametrize("text", ["USD", "EUR", "credits", "Gpu.hours_1-x", "x" * 64, "US", "usdc", "1", "us1"])
def test_a_valid_currency_is_accepted(text: str) -> None:
    assert currency_problem(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("usd", "USD"),
        ("Usd", "USD"),
        ("x" * 65, "1–64"),
        ("", "1–64"),
        ("US D", "1–64"),
        ("€", "1–64"),
        ("USD\n", "1–64"),
        ("ÜSD", "1–64"),
    ],
)
def test_an_invalid_currency_is_a_violation(text: str, says: str) -> None:
    assert says in (currency_problem(text) or "")


@pytest.mark.parametrize(
    ("seconds", "nanos", "fine"),
    [
        (0, 0, True),
        (-62_135_596_800, 0, True),
        (-62_135_596_801, 0, False),
        (-62_167_219_200, 0, False),  # the year 0
        (253_402_300_799, 999_999_999, True),
        (253_402_300_800, 0, False),
        (2**63 - 1, 0, False),
        (0, -1, False),
        (0, 1_000_000_000, False),
    ],
)
def test_a_timestamp_outside_the_years_1_to_9999_is_a_violation(seconds: int, nanos: int, fine: bool) -> None:
    assert (time_problem(seconds, nanos) is None) == fine
    violations = Violations()
    violations.time("time", Timestamp(seconds=seconds, nanos=nanos))
    assert (violations.found == []) == fine


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_equal_after_it_is_sent_and_read(time: datetime) -> None:
    message = to_timestamp(time)
    assert time_problem(message.seconds, message.nanos) is None
    assert to_datetime(message) == time


def test_times_are_cut_to_the_microsecond() -> None:
    assert to_datetime(Timestamp(seconds=-1, nanos=999_999_999)).isoformat() == "1969-12-31T23:59:59.999999+00:00"


def test_a_past_time_can_be_five_minutes_ahead() -> None:
    violations = Violations()
    limit = NOW + timedelta(minutes=5)
    assert violations.past_time("time", to_timestamp(limit), NOW) == limit
    assert violations.found == []
    violations.past_time("time", to_timestamp(limit + timedelta(microseconds=1)), NOW)
    assert "5 minutes" in violations.found[0].description


def test_valid_fields_are_returned_unchanged() -> None:
    violations = Violations()
    assert violations.identifier("id", "acme") == "acme"
    assert violations.identifier("id", "", required=False) == ""
    assert violations.text("name", "", max_length=3) == ""
    assert violations.text("name", "Ann", max_length=3) == "Ann"
    assert violations.decimal("value", "-12.50") == Decimal("-12.50")
    assert violations.currency("currency", "", default="USD") == "USD"
    assert violations.currency("currency", "EUR", default="USD") == "EUR"
    assert violations.time_zone("zone", "") == "UTC"
    assert violations.time_zone("zone", "Europe/Berlin") == "Europe/Berlin"
    violations.raise_if_any()


def test_all_violations_of_a_request_are_in_one_answer() -> None:
    violations = Violations()
    violations.identifier("a", "")
    violations.identifier("b", "x\ny")
    violations.identifier("c", "x\ny", required=False)
    violations.text("d", "abcd", max_length=3)
    violations.text("e", "a\0")
    violations.decimal("f", "")
    violations.decimal("g", "1e999")
    violations.decimal("h", "NaN")
    violations.decimal("i", "9" * 60)
    violations.currency("j", "usd", default="USD")
    violations.time("k", Timestamp(seconds=2**60))
    violations.time_zone("l", "Mars/Olympus")
    violations.add("m", "it is odd")
    with pytest.raises(InvalidArgument, match=r"a: it is required \(and 12 more\)") as raised:
        violations.raise_if_any()
    assert "".join(violation.path for violation in raised.value.violations) == "abcdefghijklm"
    assert all(violation.description for violation in raised.value.violations)
