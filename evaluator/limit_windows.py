"""Windows: the spans of time in which limits count."""

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from evaluator.periods import BillingCycle, Cadence, Period, time_zone

MINUTE = timedelta(minutes=1)
LEAST_ROLLING_MINUTES = 1
MOST_ROLLING_MINUTES = 31 * 24 * 60


class WindowKind(StrEnum):
    """How a window divides time."""

    BILLING_PERIOD = "BILLING_PERIOD"  # of the holder of the limit
    HOUR = "HOUR"  # of the calendar, in the holder's time zone, like the next three
    DAY = "DAY"
    WEEK = "WEEK"  # from Monday on
    MONTH = "MONTH"
    ROLLING = "ROLLING"  # ends with the current minute


# The length of each kind of window of the calendar, and the day of January 1970 on which one begins.
_CALENDAR = {
    WindowKind.DAY: (Cadence.DAY, 1),
    WindowKind.WEEK: (Cadence.WEEK, 5),
    WindowKind.MONTH: (Cadence.MONTH, 1),
}


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """The window of a limit. minutes: the length of a rolling one; None otherwise."""

    kind: WindowKind = WindowKind.BILLING_PERIOD
    minutes: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is not None) != (self.kind is WindowKind.ROLLING):
            raise ValueError("a rolling window has a length, and others have none")

    @property
    def is_rolling(self) -> bool:
        """Whether it moves with time, minute by minute."""
        return self.kind is WindowKind.ROLLING

    @property
    def key(self) -> str:
        """The window as text, a part of the identity of meters and limits; it must not change."""
        return self.kind.value if self.minutes is None else f"{self.kind.value}/{self.minutes}"

    def span_at(self, time: datetime, cycle: BillingCycle) -> Period:
        """The span that contains the aware `time`; of a rolling window, the span that ends with the minute of `time`.

        cycle: the billing cycle of the limit's holder, which also has its time zone.
        """
        if self.kind is WindowKind.BILLING_PERIOD:
            return cycle.period_at(time)
        if self.minutes is not None:
            end = minute_of(time) + MINUTE
            return Period(end - (self.minutes + 1) * MINUTE, end)
        if self.kind is WindowKind.HOUR:
            local = time.astimezone(time_zone(cycle.time_zone))
            start = time.astimezone(UTC) - timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
            return Period(start, start + timedelta(hours=1))
        return _calendar_cycle(self.kind, cycle.time_zone).period_at(time)


BILLING_PERIOD = LimitWindow()


def minute_of(time: datetime) -> datetime:
    """The start of the minute, in UTC."""
    return time.astimezone(UTC).replace(second=0, microsecond=0)


@functools.lru_cache(maxsize=1024)
def _calendar_cycle(kind: WindowKind, zone_name: str) -> BillingCycle:
    cadence, day = _CALENDAR[kind]
    return BillingCycle(datetime(1970, 1, day, tzinfo=time_zone(zone_name)), cadence, 1, zone_name)
