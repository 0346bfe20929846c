"""The one source of time: every process is handed a clock and asks nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """The current time, aware, in UTC, to the microsecond."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved; for tests and simulation."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def set(self, time: datetime) -> None:
        """Moves the clock to `time`, backwards too: a machine's clock can jump either way."""
        self._now = time

    def advance(self, step: timedelta) -> None:
        """Moves the clock by `step`."""
        self._now += step
