"""Billing periods: they tile time, clamp at month ends, keep the anchor's wall clock, honour the zone."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.periods import DEFAULT_CYCLE, BillingCycle, Cadence, CycleError, Period, cycle_problems, time_zone

MICROSECOND = timedelta(microseconds=1)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]

times = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001 (hypothesis wants the bounds naive)
    datetime(2100, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)
cycles = st.builds(
    BillingCycle,
    times,
    st.sampled_from(Cadence),
    st.integers(min_value=1, max_value=40),
    st.sampled_from(ZONES),
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def starts(cycle: BillingCycle, first: datetime, count: int) -> list[datetime]:
    """The starts of `count` periods one after another, from the one that contains `first`."""
    period = cycle.period_at(first)
    result = []
    for _ in range(count):
        result.append(period.start)
        period = cycle.next(period)
    return result


@given(cycles, times)
def test_a_period_contains_the_requested_time(cycle: BillingCycle, time: datetime) -> None:
    period = cycle.period_at(time)
    assert period.start <= time < period.end
    assert period.contains(time)
    assert period.start.tzinfo is UTC
    assert period.end.tzinfo is UTC


@given(cycles, times)
def test_periods_tile_time(cycle: BillingCycle, time: datetime) -> None:
    period = cycle.period_at(time)
    following = cycle.next(period)
    preceding = cycle.previous(period)
    assert preceding.end == period.start
    assert period.end == following.start
    assert cycle.previous(following) == period
    assert cycle.next(preceding) == period


@given(cycles, times)
def test_every_time_of_a_period_gives_that_period(cycle: BillingCycle, time: datetime) -> None:
    period = cycle.period_at(time)
    middle = period.start + (period.end - period.start) / 2
    for inside in (period.start, middle, period.end - MICROSECOND):
        assert cycle.period_at(inside) == period
    assert cycle.period_at(period.end) != period
    assert cycle.period_at(period.start - MICROSECOND) != period


@given(cycles)
def test_the_anchor_starts_a_period(cycle: BillingCycle) -> None:
    assert cycle.period_at(cycle.anchor).start == cycle.anchor


@given(cycles, times)
def test_wall_clock_time_of_the_anchor_is_kept_where_it_exists(cycle: BillingCycle, time: datetime) -> None:
    zone = ZoneInfo(cycle.time_zone)
    local = cycle.period_at(time).start.astimezone(zone)
    anchor = cycle.anchor.astimezone(zone)
    wanted = datetime.combine(local.date(), anchor.time(), tzinfo=zone)
    shown = wanted.astimezone(UTC).astimezone(zone)
    if shown.time() == wanted.time():
        assert local.time() == anchor.time()
    else:  # skipped by a change of the clock
        assert local == shown


@given(times, st.sampled_from([Cadence.MONTH, Cadence.QUARTER, Cadence.YEAR]), st.integers(1, 40), times)
def test_month_ends_clamp_without_drift(anchor: datetime, cadence: Cadence, count: int, time: datetime) -> None:
    start = BillingCycle(anchor, cadence, count, "UTC").period_at(time).start
    assert start.day == min(anchor.day, monthrange(start.year, start.month)[1])
    months = (start.year - anchor.year) * 12 + start.month - anchor.month
    assert months % (count * {"month": 1, "quarter": 3, "year": 12}[cadence]) == 0


@given(times, st.sampled_from([Cadence.DAY, Cadence.WEEK]), st.integers(1, 40), times)
def test_days_and_weeks_are_counted_from_the_anchor(
    anchor: datetime, cadence: Cadence, count: int, time: datetime
) -> None:
    period = BillingCycle(anchor, cadence, count, "UTC").period_at(time)
    length = timedelta(days=count * (7 if cadence is Cadence.WEEK else 1))
    assert period.end - period.start == length
    assert (period.start - anchor) % length == timedelta(0)


@given(cycles, times)
def test_the_estimated_period_agrees_with_steps_from_the_anchor(cycle: BillingCycle, time: datetime) -> None:
    """The constant-time estimate finds what stepping period by period finds, within 60 steps."""
    period = cycle.period_at(cycle.anchor)
    for _ in range(60):
        if period.contains(time):
            break
        period = cycle.next(period) if time >= period.end else cycle.previous(period)
    else:
        return
    assert cycle.period_at(time) == period


def test_january_31_is_followed_by_the_ends_of_the_short_months() -> None:
    cycle = BillingCycle(utc("2023-01-31T12:00:00+00:00"), Cadence.MONTH, 1, "UTC")
    assert [f"{start:%m-%d}" for start in starts(cycle, cycle.anchor, 6)] == [
        "01-31",
        "02-28",
        "03-31",
        "04-30",
        "05-31",
        "06-30",
    ]
    assert cycle.period_at(utc("2024-02-29T11:59:59+00:00")).start == utc("2024-01-31T12:00:00+00:00")
    assert cycle.period_at(utc("2024-02-29T12:00:00+00:00")).start == utc("2024-02-29T12:00:00+00:00")


def test_29_february_anniversaries_return_to_the_29th() -> None:
    cycle = BillingCycle(utc("2024-02-29T00:00:00+00:00"), Cadence.YEAR, 1, "UTC")
    assert [f"{start:%Y-%m-%d}" for start in starts(cycle, cycle.anchor, 5)] == [
        "2024-02-29",
        "2025-02-28",
        "2026-02-28",
        "2027-02-28",
        "2028-02-29",
    ]


def test_an_anchor_in_the_future_extends_backwards() -> None:
    cycle = BillingCycle(utc("2030-08-31T00:00:00+00:00"), Cadence.QUARTER, 1, "UTC")
    assert cycle.period_at(utc("2026-03-01T00:00:00+00:00")) == Period(
        utc("2026-02-28T00:00:00+00:00"), utc("2026-05-31T00:00:00+00:00")
    )


def test_a_month_in_berlin_is_an_hour_short_when_summer_time_begins() -> None:
    cycle = BillingCycle(utc("2026-01-01T00:00:00+01:00"), Cadence.MONTH, 1, "Europe/Berlin")
    march = cycle.period_at(utc("2026-03-15T00:00:00+00:00"))
    assert march == Period(utc("2026-03-01T00:00:00+01:00"), utc("2026-04-01T00:00:00+02:00"))
    assert march.end - march.start == timedelta(days=31, hours=-1)


def test_a_skipped_wall_clock_time_moves_forward_for_that_day_only() -> None:
    cycle = BillingCycle(utc("2026-03-01T02:30:00-05:00"), Cadence.DAY, 1, "America/New_York")
    days = starts(cycle, utc("2026-03-07T12:00:00+00:00"), 3)  # clocks go from 02:00 to 03:00 on the 8th
    assert days == [
        utc("2026-03-07T02:30:00-05:00"),
        utc("2026-03-08T03:30:00-04:00"),
        utc("2026-03-09T02:30:00-04:00"),
    ]


def test_a_repeated_wall_clock_time_means_the_first() -> None:
    cycle = BillingCycle(utc("2026-10-01T01:30:00-04:00"), Cadence.DAY, 1, "America/New_York")
    days = starts(cycle, utc("2026-10-31T12:00:00+00:00"), 3)  # clocks go from 02:00 to 01:00 on 1 November
    assert days == [
        utc("2026-10-31T01:30:00-04:00"),
        utc("2026-11-01T01:30:00-04:00"),
        utc("2026-11-02T01:30:00-05:00"),
    ]


def test_an_anchor_at_the_second_of_two_equal_times_starts_its_own_period() -> None:
    anchor = utc("2026-11-01T01:30:00-05:00")
    cycle = BillingCycle(anchor, Cadence.MONTH, 1, "America/New_York")
    assert cycle.period_at(anchor).start == anchor
    assert cycle.previous(cycle.period_at(anchor)).end == anchor
    assert cycle.next(cycle.period_at(anchor)).start == utc("2026-12-01T01:30:00-05:00")


def test_lord_howe_shifts_by_half_an_hour() -> None:
    cycle = BillingCycle(utc("2026-09-01T02:15:00+10:30"), Cadence.DAY, 1, "Australia/Lord_Howe")
    days = starts(cycle, utc("2026-10-03T00:00:00+00:00"), 3)  # 02:00 becomes 02:30 on 4 October
    assert days == [
        utc("2026-10-03T02:15:00+10:30"),
        utc("2026-10-04T02:45:00+11:00"),
        utc("2026-10-05T02:15:00+11:00"),
    ]


def test_a_day_that_a_zone_skipped_leaves_no_empty_period() -> None:
    cycle = BillingCycle(utc("2011-12-01T00:00:00-10:00"), Cadence.DAY, 1, "Pacific/Apia")
    days = starts(cycle, utc("2011-12-29T12:00:00-10:00"), 3)  # Samoa had no 30 December 2011
    assert days == [
        utc("2011-12-29T00:00:00-10:00"),
        utc("2011-12-31T00:00:00+14:00"),
        utc("2012-01-01T00:00:00+14:00"),
    ]
    assert cycle.previous(cycle.period_at(days[1])).start == days[0]


def test_default_is_the_calendar_month_in_utc() -> None:
    assert DEFAULT_CYCLE.period_at(utc("2026-02-28T23:59:59.999999+00:00")) == Period(
        utc("2026-02-01T00:00:00+00:00"), utc("2026-03-01T00:00:00+00:00")
    )
    assert DEFAULT_CYCLE.period_at(utc("2026-03-01T00:00:00+00:00")).start == utc("2026-03-01T00:00:00+00:00")


@pytest.mark.parametrize("cadence", Cadence)
@pytest.mark.parametrize("zone", ZONES)
def test_the_limits_of_datetime_do_not_overflow(cadence: Cadence, zone: str) -> None:
    cycle = BillingCycle(utc("2026-01-31T00:00:00+00:00"), cadence, 1000, zone)
    earliest, latest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert cycle.period_at(earliest).contains(earliest)
    assert cycle.period_at(latest).contains(latest - MICROSECOND)
    assert cycle.previous(cycle.period_at(earliest)) == cycle.period_at(earliest)


def test_times_of_other_zones_are_the_same_instants() -> None:
    elsewhere = datetime(2026, 3, 1, 3, tzinfo=timezone(timedelta(hours=4)))
    assert DEFAULT_CYCLE.period_at(elsewhere).end == utc("2026-03-01T00:00:00+00:00")
    assert BillingCycle(elsewhere, Cadence.DAY, 1, "UTC").anchor == utc("2026-02-28T23:00:00+00:00")


@pytest.mark.parametrize(
    ("anchor", "count", "zone", "field", "says"),
    [
        (datetime(2026, 1, 1), 1, "UTC", "anchor", "aware"),  # noqa: DTZ001 (the point of the case)
        (datetime(1, 1, 1, tzinfo=UTC), 1, "UTC", "anchor", "1900 to 2199"),
        (datetime(9999, 1, 1, tzinfo=UTC), 1, "UTC", "anchor", "1900 to 2199"),
        (datetime(2026, 1, 1, tzinfo=UTC), 0, "UTC", "interval_count", "1 to 1000"),
        (datetime(2026, 1, 1, tzinfo=UTC), 1001, "UTC", "interval_count", "1 to 1000"),
        (datetime(2026, 1, 1, tzinfo=UTC), 1, "Mars/Olympus", "time_zone", "Mars/Olympus"),
    ],
)
def test_an_invalid_cycle_is_refused_with_the_reason(
    anchor: datetime, count: int, zone: str, field: str, says: str
) -> None:
    with pytest.raises(CycleError, match=says) as raised:
        BillingCycle(anchor, Cadence.MONTH, count, zone)
    assert raised.value.field == field


def test_all_violations_of_a_cycle_are_reported() -> None:
    problems = list(cycle_problems(datetime(1500, 1, 1), -1, "Nowhere"))  # noqa: DTZ001
    assert [problem.field for problem in problems] == ["anchor", "anchor", "interval_count", "time_zone"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Europe",
        "../etc/passwd",
        "/etc/localtime",
        "right/UTC",
        "localtime",
        "Europe/Berlin\n",
        "Ünd/Ö",
        "x" * 10_000,
    ],
)
def test_only_iana_names_are_zones(name: str) -> None:
    with pytest.raises(CycleError):
        time_zone(name)
