"""The only source of the current time: each process gets a clock, and reads no other."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """The current time, aware, in UTC, to the microsecond."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when it is set or advanced; for tests and simulation."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def set(self, time: datetime) -> None:
        """Sets the clock to `time`, which may be earlier: the clock of a machine can jump in both directions."""
        self._now = time

    def advance(self, step: timedelta) -> None:
        """Moves the clock forward by `step`."""
        self._now += step
