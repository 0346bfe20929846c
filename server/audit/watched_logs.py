"""The audit logs that have subscribers on this server: a poll finds new entries, and wakes the streams of the log.

One statement a second asks for all watched logs together. A sweep gives numbers to the entries of logs without
readers, so that a new list or stream begins quickly.
"""

import asyncio
import collections
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.fair_semaphore import FairSemaphore, may_take
from runtime.tasks import BackgroundTask, FailureLog
from server.calls.errors import ResourceExhausted, exhausted_by_organization
from store.audit import log, numbering
from store.audit.log import AuditFilter, StoredEntry
from store.postgres.database import Connection, Database, DatabaseUnavailable

POLL_INTERVAL = 1.0  # seconds between polls for new entries
SWEEP_INTERVAL = 30.0  # seconds between sweeps of the logs without readers
GUARANTEED_SUBSCRIBERS = 5  # of each organization, however many others have
READERS = 2  # transactions that read for streams at the same time; an organization has one
NUMBERS_AT_ONCE = 50  # entries that one read for a stream covers

logger = logging.getLogger(__name__)


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class WatchedLog:
    """A log that has subscribers. last_number: as last seen. growth: is done when the log has grown beyond it."""

    organization_id: int
    last_number: int = 0
    subscribers: int = 0
    growth: "asyncio.Future[None]" = field(default_factory=_future)

    def grow_to(self, number: int) -> None:
        """Notes the last number of the log, and wakes the streams if it is new."""
        if number > self.last_number:
            self.last_number = number
            self.growth.set_result(None)
            self.growth = _future()


class WatchedLogs:
    """The watched logs of this server.

    max_subscribers: of all organizations, beside the first GUARANTEED_SUBSCRIBERS of each.
    organization_subscribers: of one organization. It may never have more than it leaves free (`may_take`).
    """

    def __init__(
        self,
        database: Database,
        *,
        max_subscribers: int,
        organization_subscribers: int,
        poll_interval: float = POLL_INTERVAL,
    ) -> None:
        """poll_interval: seconds."""
        self._database = database
        self._max_subscribers = max_subscribers
        self._organization_subscribers = organization_subscribers
        self._logs: dict[int, WatchedLog] = {}
        self._subscribers = 0
        self._in_use = asyncio.Event()
        self._readers = FairSemaphore(READERS)
        unavailable = (DatabaseUnavailable,)  # not logged: the health service reports it
        self._tasks = (
            BackgroundTask(
                self._poll,
                FailureLog(logger, "the poll for audit entries failed", LogAction.AUDIT_FAILED, unavailable),
                name="audit poll",
                interval=poll_interval,
                backoff=Backoff(longest=poll_interval),
            ),
            BackgroundTask(
                self.sweep,
                FailureLog(logger, "the sweep of the audit logs failed", LogAction.AUDIT_FAILED, unavailable),
                name="audit sweep",
                interval=SWEEP_INTERVAL,
                first_pause=SWEEP_INTERVAL,
                backoff=Backoff(longest=SWEEP_INTERVAL),
            ),
        )

    def start(self) -> None:
        """Begins to sweep; begins to poll with the first subscriber."""
        for task in self._tasks:
            task.start()

    async def stop(self) -> None:
        """Ends the tasks."""
        await asyncio.gather(*(task.stop() for task in self._tasks))

    def subscribe(self, organization_id: int) -> WatchedLog:
        """One subscriber more of a log; `leave` ends it. Raises ResourceExhausted when there are too many."""
        watched = self._logs.get(organization_id)
        own = watched.subscribers if watched else 0
        guaranteed = own < min(GUARANTEED_SUBSCRIBERS, self._organization_subscribers)
        free = self._max_subscribers - self._subscribers
        if not guaranteed and (own >= self._organization_subscribers or not may_take(own, free)):
            # The answer has only the organization's own number, because others must not be inferred from it.
            raise ResourceExhausted(
                error_reason_pb2.ERROR_REASON_TOO_MANY_WATCHERS,
                f"this organization has {own} streams of its audit log on this server, its share of the server now:"
                " end one, or use another server",
                metadata={"limit": str(own)},
                exhausted=exhausted_by_organization("its share of the streams of audit logs on this server"),
            )
        if watched is None:
            watched = self._logs[organization_id] = WatchedLog(organization_id)
        watched.subscribers += 1
        self._subscribers += 1
        self._in_use.set()
        return watched

    def leave(self, watched: WatchedLog) -> None:
        """Counts one subscriber less."""
        self._subscribers -= 1
        watched.subscribers -= 1
        if watched.subscribers == 0:
            del self._logs[watched.organization_id]
        if not self._logs:
            self._in_use.clear()

    @contextlib.asynccontextmanager
    async def reading(self, organization_id: int) -> AsyncIterator[Connection]:
        """A transaction that reads for one stream, in its organization's turn.

        So many streams of one organization do not delay those of another. Raises DatabaseUnavailable.
        """
        async with self._readers.seat(organization_id), self._database.transaction() as connection:
            yield connection

    async def read(self, organization_id: int, wanted: AuditFilter, after: int) -> tuple[list[StoredEntry], int]:
        """The next wanted entries after a number, and the number up to which they are all that are wanted.

        Raises EntriesDeleted and DatabaseUnavailable.
        """
        async with self.reading(organization_id) as connection:
            return await log.read(connection, organization_id, wanted, after=after, limit=NUMBERS_AT_ONCE)

    async def _poll(self) -> float | None:
        """Returns 0 where more entries may wait for their numbers."""
        await self._in_use.wait()
        watched = list(self._logs)
        async with self._database.transaction() as connection:
            progress = await numbering.progress(connection, watched)
        more = [one for one in watched if progress[one][1] and await self._number(one)]
        async with self._database.transaction() as connection:
            progress = await numbering.progress(connection, watched)
        for organization_id, (number, _) in progress.items():
            if (found := self._logs.get(organization_id)) is not None:
                found.grow_to(number)
        return 0.0 if more else None

    async def sweep(self) -> None:
        """Gives numbers to all entries that are committed."""
        async with self._database.transaction() as connection:
            waiting = collections.deque(await numbering.with_pending(connection))
        while waiting:
            organization_id = waiting.popleft()
            if await self._number(organization_id):
                waiting.append(organization_id)  # after the others

    async def _number(self, organization_id: int) -> bool:
        """Gives numbers to some entries of a log; returns whether more may wait."""
        try:
            async with self._database.transaction() as connection:
                return await numbering.assign_numbers(connection, organization_id)
        except DatabaseUnavailable as error:
            # A contained failure concerns this log only; the next poll or sweep tries it again.
            if not error.failure.contained:
                raise
            return False
