"""What this process counts for overviews: the usage of each organization, in intervals of ten seconds.

Counting costs some additions for each commit. Once an interval has ended, one statement writes what was counted for
all organizations that sent usage in it.
"""

import logging
import secrets
from datetime import UTC, datetime, timedelta

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres.database import Database, DatabaseUnavailable
from store.usage import activity
from store.usage.activity import Counted

INTERVAL = timedelta(seconds=10)
WRITE_AFTER = timedelta(seconds=3)  # the end of an interval; so long servers may take to write it
KEPT = timedelta(minutes=15)
MOST_KEPT = 200_000  # rows that wait for a database that is away; the oldest are left out then
_FORGET_EVERY = 30  # writes
_CHECK = 2.0  # seconds between two looks for intervals that have ended

logger = logging.getLogger(__name__)


def interval_of(time: datetime) -> datetime:
    """The start of the interval that contains a time."""
    seconds = int(time.timestamp())
    return datetime.fromtimestamp(seconds - seconds % int(INTERVAL.total_seconds()), UTC)


def last_complete(now: datetime) -> datetime:
    """The start of the last interval that all servers have written."""
    return interval_of(now - WRITE_AFTER) - INTERVAL


class UsageActivity:
    """Counts usage, and writes the counts of intervals that have ended."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counted: dict[tuple[int, datetime], Counted] = {}
        self._start = self._end = datetime.fromtimestamp(0, UTC)  # of the interval of the last commit
        self._process_id = secrets.token_hex(8)
        self._writes = 0
        self._task = BackgroundTask(
            self.write_ended,
            FailureLog(logger, "activity cannot be written", LogAction.ACTIVITY_FAILED, (DatabaseUnavailable,)),
            name="activity",
            interval=_CHECK,
            first_pause=_CHECK,
            backoff=Backoff(longest=30.0),
        )

    def start(self) -> None:
        """Begins to write."""
        self._task.start()

    async def stop(self) -> None:
        """Stops writing. The counts of the interval that has not ended are lost."""
        await self._task.stop()

    def add(self, organization_id: int, events: int, transitions: int, wait: float) -> None:
        """Counts a commit. wait: seconds of all its events together, from their arrival until they were durable."""
        now = self._clock.now()
        if not self._start <= now < self._end:
            self._start = interval_of(now)
            self._end = self._start + INTERVAL
        key = organization_id, self._start
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = Counted()
        counted.events += events
        counted.transitions += transitions
        counted.wait += wait

    async def write_ended(self) -> None:
        """Writes the intervals that have ended. Raises DatabaseUnavailable."""
        current = interval_of(self._clock.now())
        ended = {key: counted for key, counted in self._counted.items() if key[1] < current}
        if not ended:
            return
        for key in sorted(ended, key=lambda one: one[1])[: max(len(ended) - MOST_KEPT, 0)]:
            del ended[key], self._counted[key]
        forget = current - KEPT if self._writes % _FORGET_EVERY == 0 else None
        async with self._database.transaction() as connection:
            await activity.write(connection, self._process_id, ended, forget)
        self._writes += 1
        for key in ended:
            del self._counted[key]
