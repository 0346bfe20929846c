"""Billing cycles and billing periods: anchors, cadences, month ends, daylight saving time."""

import functools
import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

MAX_INTERVAL_COUNT = 1000  # cadences in one period
FIRST_ANCHOR_YEAR = 1900
LAST_ANCHOR_YEAR = 2199
MAX_TIME_ZONE_LENGTH = 64  # characters; the longest IANA name has 32

_MICROSECOND = timedelta(microseconds=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)

_ZONE_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9/_+-]{{1,{MAX_TIME_ZONE_LENGTH - 1}}}", re.ASCII)
# Names that zoneinfo can load but that are not zones of a place: files of the host, and zones with leap seconds.
_NOT_A_ZONE = ("localtime", "posixrules", "Factory", "right/", "posix/")


class CycleError(ValueError):
    """A part of a billing cycle is invalid: `field` names the part, and the text says what is allowed."""

    def __init__(self, field_name: str, text: str) -> None:
        super().__init__(text)
        self.field = field_name


class Cadence(StrEnum):
    """The unit of a billing period's length."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


# The length of a cadence, either in days or in calendar months.
_DAYS = {Cadence.DAY: 1, Cadence.WEEK: 7}
_MONTHS = {Cadence.MONTH: 1, Cadence.QUARTER: 3, Cadence.YEAR: 12}


@functools.lru_cache(maxsize=1024)
def time_zone(name: str) -> ZoneInfo:
    """The IANA zone of that name (`Europe/Berlin`, `UTC`). Raises CycleError."""
    shown = name if len(name) <= MAX_TIME_ZONE_LENGTH else name[:MAX_TIME_ZONE_LENGTH] + "…"
    error = CycleError("time_zone", f"{shown!r} is not an IANA time zone such as Europe/Berlin or UTC")
    if not _ZONE_NAME.fullmatch(name) or name.startswith(_NOT_A_ZONE):
        raise error
    try:
        return ZoneInfo(name)
    # A folder of the zone database (`Europe`) raises OSError, a path out of it (`a/../..`) ValueError.
    except (KeyError, ValueError, OSError):
        raise error from None


@dataclass(frozen=True, slots=True)
class Period:
    """One billing period: the half-open span [start, end) of two aware UTC times."""

    start: datetime
    end: datetime

    def contains(self, time: datetime) -> bool:
        """Whether the aware `time` lies in [start, end)."""
        return self.start <= time < self.end


@dataclass(frozen=True, slots=True)
class BillingCycle:
    """Divides time into billing periods: one starts every `interval_count` cadences before and after `anchor`.

    `anchor` is an aware time and itself the start of a period. Every other period starts at the anchor's wall
    clock time in `time_zone`, so a daily period lasts 23 or 25 hours when daylight saving time begins or ends. A
    wall clock time that a change of the clock skips moves forward by the skipped span; of one that happens twice the
    first is meant. Days after the end of a month are clamped to it, and every month counts from the anchor, so that
    31 January is followed by 28 or 29 February and then by 31 March.
    """

    anchor: datetime
    cadence: Cadence
    interval_count: int
    time_zone: str
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _local_anchor: datetime = field(init=False, repr=False, compare=False)
    _days: int = field(init=False, repr=False, compare=False)  # of one period; 0 when it is months long
    _months: int = field(init=False, repr=False, compare=False)
    _last: Period | None = field(init=False, repr=False, compare=False)  # the period found last

    def __post_init__(self) -> None:
        """Normalises the anchor to UTC. Raises CycleError."""
        for problem in cycle_problems(self.anchor, self.interval_count, self.time_zone):
            raise problem
        zone = time_zone(self.time_zone)
        object.__setattr__(self, "_days", _DAYS.get(self.cadence, 0) * self.interval_count)
        object.__setattr__(self, "_months", _MONTHS.get(self.cadence, 0) * self.interval_count)
        object.__setattr__(self, "anchor", self.anchor.astimezone(UTC))
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_last", None)
        # fold=0 because every period but the anchor's own takes the first of two equal wall clock times.
        object.__setattr__(self, "_local_anchor", self.anchor.astimezone(zone).replace(tzinfo=None, fold=0))

    def period_at(self, time: datetime) -> Period:
        """The period that contains the aware `time`. Callers on the hot path keep the result.

        The first and the last period that a datetime can express end at its limits.
        """
        if self._last is not None and self._last.contains(time):
            return self._last
        found = self._find(time)
        object.__setattr__(self, "_last", found)
        return found

    def _find(self, time: datetime) -> Period:
        time = min(time.astimezone(UTC), _LATEST - _MICROSECOND)
        index = self._estimate(time)
        start = self._boundary(index)
        while time < start:
            index -= 1
            start = self._boundary(index)
        end = self._boundary(index + 1)
        # `while`, because two boundaries can be the same instant where a zone skipped a whole day. The empty period
        # between them contains no time.
        while end <= time:
            index += 1
            start, end = end, self._boundary(index + 1)
        return Period(start, end)

    def next(self, period: Period) -> Period:
        """The period that starts where `period` ends."""
        return self.period_at(period.end)

    def previous(self, period: Period) -> Period:
        """The period that ends where `period` starts."""
        return self.period_at(max(period.start, _EARLIEST + _MICROSECOND) - _MICROSECOND)

    def _estimate(self, time: datetime) -> int:
        """The index, counted from the anchor, of a period at most one or two away from the one at `time`."""
        try:
            local = time.astimezone(self._zone).replace(tzinfo=None)
        except OverflowError:  # within a day of the limits of datetime
            local = time.replace(tzinfo=None)
        anchor = self._local_anchor
        if self._days:
            return (local - anchor).days // self._days
        return ((local.year - anchor.year) * 12 + local.month - anchor.month) // self._months

    def _boundary(self, index: int) -> datetime:
        """The UTC start of the period that is the `index`th after the anchor's own."""
        if index == 0:
            # The anchor starts its period even where it is the second of two equal wall clock times.
            return self.anchor
        try:
            if self._days:
                local = self._local_anchor + timedelta(days=index * self._days)
            else:
                local = _add_months(self._local_anchor, index * self._months)
            # fold=0 implements both rules: it means the first of two equal wall clock times, and gives a skipped time
            # the offset from before the change, which moves it forward by the skipped span.
            return local.replace(tzinfo=self._zone).astimezone(UTC)
        except (OverflowError, ValueError):
            return _EARLIEST if index < 0 else _LATEST


def cycle_problems(anchor: datetime, interval_count: int, zone_name: str) -> Iterator[CycleError]:
    """An error for each value that cannot be part of a billing cycle."""
    if anchor.tzinfo is None:
        yield CycleError("anchor", "it has no time zone: give an aware time")
    if not FIRST_ANCHOR_YEAR <= anchor.year <= LAST_ANCHOR_YEAR:
        years = f"{FIRST_ANCHOR_YEAR} to {LAST_ANCHOR_YEAR}"
        yield CycleError("anchor", f"it is in the year {anchor.year}: give a time in the years {years}")
    if not 1 <= interval_count <= MAX_INTERVAL_COUNT:
        yield CycleError("interval_count", f"it is {interval_count}: give 1 to {MAX_INTERVAL_COUNT}")
    try:
        time_zone(zone_name)
    except CycleError as error:
        yield error


def _add_months(local: datetime, months: int) -> datetime:
    """`local` moved by calendar months; its day is clamped to the length of the new month."""
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    if not MINYEAR <= year <= MAXYEAR:
        raise OverflowError
    return local.replace(year=year, month=month + 1, day=min(local.day, monthrange(year, month + 1)[1]))


DEFAULT_CYCLE = BillingCycle(datetime(1970, 1, 1, tzinfo=UTC), Cadence.MONTH, 1, "UTC")
