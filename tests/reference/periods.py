"""Billing cycles and their periods."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Cycle:
    """A billing cycle. cadence: day, week or month. Periods start at the anchor's wall clock time in the zone."""

    anchor: datetime
    cadence: str = "month"
    interval: int = 1
    zone: str = "UTC"


CALENDAR_MONTH = Cycle(datetime(2000, 1, 1, tzinfo=UTC))


class Periods:
    """The periods of one cycle, found by stepping from period to period."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._zone = ZoneInfo(cycle.zone)
        self._anchor = cycle.anchor.astimezone(self._zone).replace(tzinfo=None)
        self._number = 0
        self._boundaries: dict[int, datetime] = {}  # each is asked for many times

    def start_of(self, time: datetime) -> datetime:
        """The start of the period that contains `time`."""
        while self._boundary(self._number + 1) <= time:
            self._number += 1
        while self._boundary(self._number) > time:
            self._number -= 1
        return self._boundary(self._number)

    def _boundary(self, number: int) -> datetime:
        if number not in self._boundaries:
            self._boundaries[number] = self._calculated(number)
        return self._boundaries[number]

    def _calculated(self, number: int) -> datetime:
        count = number * self._cycle.interval
        if self._cycle.cadence == "month":
            month = self._anchor.month - 1 + count
            year, month = self._anchor.year + month // 12, month % 12 + 1
            day = min(self._anchor.day, monthrange(year, month)[1])
            local = self._anchor.replace(year=year, month=month, day=day)
        else:
            days = {"day": 1, "week": 7}[self._cycle.cadence] * count
            local = self._anchor + timedelta(days=days)
        return local.replace(tzinfo=self._zone).astimezone(UTC)


def month_of_end(end: datetime) -> datetime:
    """The start of the calendar month (UTC) in which a period ended; the end itself is no part of the period."""
    last = (end - timedelta(microseconds=1)).astimezone(UTC)
    return last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
