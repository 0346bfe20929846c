"""Periods across clock changes, in years that zone files describe by a rule, in any zone of this machine.

Zone files list changes up to 2037 and give a rule for later ones. Every time below has its offset written out:
nothing that is expected is computed by the zone under test.
"""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from evaluator.amounts import exact_arithmetic
from evaluator.balance_values import days_left
from evaluator.gauges import Gauge, Measure
from evaluator.invoices import InvoiceStatus, MeasuredInvoice, calendar_month
from evaluator.notification_json import format_time
from evaluator.periods import BillingCycle, Cadence, Period

MACHINE_ZONES = ["UTC", "Pacific/Kiritimati", "America/St_Johns", "Australia/Lord_Howe"]


@pytest.fixture(params=MACHINE_ZONES)
def machine_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets the zone of this machine for one test."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()
    assert os.environ.get("TZ") != request.param or request.param == "UTC"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def starts(zone: str, cadence: Cadence, anchor: str, first: str, count: int, every: int = 1) -> list[datetime]:
    """The starts of so many periods one after another; `first` lies in the first of them."""
    cycle = BillingCycle(utc(anchor), cadence, every, zone)
    period = cycle.period_at(utc(first))
    found = []
    for _ in range(count):
        found.append(period.start)
        # The first time, the last time and a time between give the same period.
        for inside in (
            period.start,
            period.start + (period.end - period.start) / 2,
            period.end - timedelta.resolution,
        ):
            assert cycle.period_at(inside) == period
            assert period.contains(inside)
        assert not period.contains(period.end)
        period = cycle.next(period)
    return found


# zone, anchor (long before), a time of the first period, and the starts of days
DAYS = [
    # Summer time begins on 26 March 2045 in Berlin: 02:30 is skipped, and moves to 03:30 on that day only.
    (
        "Europe/Berlin",
        "2026-01-01T02:30+01:00",
        "2045-03-25T12:00+01:00",
        ["2045-03-25T02:30+01:00", "2045-03-26T03:30+02:00", "2045-03-27T02:30+02:00"],
    ),
    # It ends on 30 October 2044: 02:30 happens twice, and the first one counts.
    (
        "Europe/Berlin",
        "2026-01-01T02:30+01:00",
        "2044-10-29T12:00+02:00",
        ["2044-10-29T02:30+02:00", "2044-10-30T02:30+02:00", "2044-10-31T02:30+01:00"],
    ),
    # Before the hour that is skipped or repeated, and after it.
    (
        "Europe/Berlin",
        "2026-01-01T00:00+01:00",
        "2045-03-26T00:30+01:00",
        ["2045-03-26T00:00+01:00", "2045-03-27T00:00+02:00", "2045-03-28T00:00+02:00"],
    ),
    (
        "America/New_York",
        "2026-01-01T01:30-05:00",
        "2050-11-05T12:00-04:00",
        ["2050-11-05T01:30-04:00", "2050-11-06T01:30-04:00", "2050-11-07T01:30-05:00"],
    ),
    (
        "America/New_York",
        "2026-01-01T02:15-05:00",
        "2050-03-12T12:00-05:00",
        ["2050-03-12T02:15-05:00", "2050-03-13T03:15-04:00", "2050-03-14T02:15-04:00"],
    ),
    # South of the equator summer ends in April and begins in September.
    (
        "Pacific/Auckland",
        "2026-01-01T02:30+13:00",
        "2050-04-02T12:00+13:00",
        ["2050-04-02T02:30+13:00", "2050-04-03T02:30+13:00", "2050-04-04T02:30+12:00"],
    ),
    (
        "Pacific/Auckland",
        "2026-01-01T02:30+13:00",
        "2050-09-24T12:00+12:00",
        ["2050-09-24T02:30+12:00", "2050-09-25T03:30+13:00", "2050-09-26T02:30+13:00"],
    ),
    # Midnight itself is skipped.
    (
        "America/Santiago",
        "2026-01-01T00:00-03:00",
        "2045-09-02T12:00-04:00",
        ["2045-09-02T00:00-04:00", "2045-09-03T01:00-03:00", "2045-09-04T00:00-03:00"],
    ),
    (
        "America/Santiago",
        "2026-01-01T23:30-03:00",
        "2045-03-31T23:45-03:00",
        ["2045-03-31T23:30-03:00", "2045-04-01T23:30-03:00", "2045-04-02T23:30-04:00"],
    ),
    # Half an hour only.
    (
        "Australia/Lord_Howe",
        "2026-01-01T01:45+11:00",
        "2045-04-01T12:00+11:00",
        ["2045-04-01T01:45+11:00", "2045-04-02T01:45+11:00", "2045-04-03T01:45+10:30"],
    ),
    (
        "Australia/Lord_Howe",
        "2026-01-01T02:15+11:00",
        "2045-09-30T12:00+10:30",
        ["2045-09-30T02:15+10:30", "2045-10-01T02:45+11:00", "2045-10-02T02:15+11:00"],
    ),
    # No change at all.
    (
        "America/Sao_Paulo",
        "2026-01-01T00:00-03:00",
        "2045-10-14T12:00-03:00",
        ["2045-10-14T00:00-03:00", "2045-10-15T00:00-03:00", "2045-10-16T00:00-03:00"],
    ),
    (
        "Asia/Kathmandu",
        "2026-01-01T00:00+05:45",
        "2045-03-25T12:00+05:45",
        ["2045-03-25T00:00+05:45", "2045-03-26T00:00+05:45", "2045-03-27T00:00+05:45"],
    ),
]


@pytest.mark.parametrize(("zone", "anchor", "first", "expected"), DAYS)
def test_days_keep_the_wall_clock_where_it_changes_in_far_years(
    zone: str, anchor: str, first: str, expected: list[str]
) -> None:
    assert starts(zone, Cadence.DAY, anchor, first, 3) == [utc(one) for one in expected]


SECOND = "2026-10-25T02:30+01:00"  # the second 02:30 of that day in Berlin; 25 October is such a day in 2037 too


@pytest.mark.parametrize(
    ("cadence", "every", "first", "expected"),
    [
        (Cadence.YEAR, 1, "2036-12-01T00:00Z", ["2036-10-25T02:30+02:00", "2037-10-25T02:30+02:00"]),
        (Cadence.YEAR, 11, "2037-12-01T00:00Z", ["2037-10-25T02:30+02:00", "2048-10-25T02:30+02:00"]),
        (Cadence.MONTH, 1, "2048-09-30T00:00Z", ["2048-09-25T02:30+02:00", "2048-10-25T02:30+02:00"]),
        (Cadence.QUARTER, 1, "2054-07-30T00:00Z", ["2054-07-25T02:30+02:00", "2054-10-25T02:30+02:00"]),
        (Cadence.WEEK, 1, "2037-10-20T00:00Z", ["2037-10-18T02:30+02:00", "2037-10-25T02:30+02:00"]),
    ],
)
def test_an_anchor_at_the_second_of_two_equal_times_means_the_first_in_every_other_period(
    cadence: Cadence, every: int, first: str, expected: list[str]
) -> None:
    assert starts("Europe/Berlin", cadence, SECOND, first, 2, every) == [utc(one) for one in expected]
    assert starts("Europe/Berlin", cadence, SECOND, SECOND, 1, every) == [utc(SECOND)]


def test_months_of_a_far_year_are_an_hour_short_and_an_hour_long() -> None:
    found = starts("Europe/Berlin", Cadence.MONTH, "2026-01-31T00:00+01:00", "2045-02-28T12:00+01:00", 9)
    assert [f"{start.astimezone(UTC):%m-%dT%H}" for start in found] == [
        *("02-27T23", "03-30T22", "04-29T22", "05-30T22", "06-29T22", "07-30T22", "08-30T22", "09-29T22", "10-30T23")
    ]


def test_periods_do_not_depend_on_the_zone_of_the_machine(machine_zone: str) -> None:
    for zone, anchor, first, expected in DAYS:
        assert starts(zone, Cadence.DAY, anchor, first, 3) == [utc(one) for one in expected], machine_zone
    local = datetime(2045, 3, 26, 2, 30).astimezone()  # this machine's own time is a time like any other
    cycle = BillingCycle(local, Cadence.MONTH, 1, "Europe/Berlin")
    period = cycle.period_at(local)
    assert (period.start, period.start.tzinfo, period.end.tzinfo) == (local, UTC, UTC)
    assert BillingCycle(local.astimezone(UTC), Cadence.MONTH, 1, "Europe/Berlin") == cycle


@pytest.mark.parametrize("zone", MACHINE_ZONES)
def test_calendar_months_are_those_of_the_customers_zone(machine_zone: str, zone: str) -> None:
    offset = {
        "UTC": "+00:00",
        "Pacific/Kiritimati": "+14:00",
        "America/St_Johns": "-03:30",
        "Australia/Lord_Howe": "+11:00",
    }[zone]
    # January is winter in the north and summer in the south, so that neither end of it lies at a change.
    january = Period(utc(f"2045-01-01T00:00{offset}"), utc(f"2045-02-01T00:00{offset}"))
    for inside in (january.start, utc("2045-01-15T12:00Z"), january.end - timedelta.resolution):
        assert calendar_month(zone, inside) == january
    assert calendar_month(zone, january.end).start == january.end
    # An invoice that ends with the month belongs to that month, although its end is the start of the next.
    invoice = MeasuredInvoice("inv", None, InvoiceStatus.ISSUED, "USD", Decimal(1), january.end)
    assert invoice.month(zone) == january
    assert machine_zone


def test_shown_and_hashed_times_do_not_depend_on_the_zone_of_the_machine(machine_zone: str) -> None:
    local = datetime(2045, 3, 26, 2, 30, 0, 5).astimezone()
    moment = local.astimezone(UTC)
    assert format_time(local) == format_time(moment) == f"{moment:%Y-%m-%dT%H:%M:%S}.000005Z"
    assert format_time(utc("2045-03-26T03:30+02:00")) == "2045-03-26T01:30:00.000000Z"
    ids = set()
    for anchor in (local, moment):
        cycle = BillingCycle(anchor, Cadence.DAY, 1, "Europe/Berlin")
        gauge = Gauge("acme", None, Measure(metric_id="calls"), (), cycle.period_at(anchor))
        ids.add(gauge.gauge_id)
    assert len(ids) == 1, machine_zone
    with exact_arithmetic():
        # A day is 24 hours, also where a calendar day has 23.
        left = days_left(utc("2045-03-27T00:00+02:00"), utc("2045-03-26T00:00+01:00"))
    assert left == Decimal("0.958333333333333334")
