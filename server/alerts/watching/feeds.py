"""The feeds of this server's watchers: committed notifications get their places, and the tails grow.

One connection of the process listens for commits; a hint that is lost is found by polling. Feeds that nobody watches
are swept now and then, so that whoever comes finds little to do.
"""

import asyncio
import collections
import contextlib
import logging
from collections.abc import AsyncIterator

from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.configuration import DEFAULT_MAX_WATCHERS, DEFAULT_ORGANIZATION_WATCHERS
from runtime.fair_semaphore import FairSemaphore, may_take
from runtime.tasks import BackgroundTask, FailureLog
from server.alerts.watching.tail import Tail
from server.calls.errors import ResourceExhausted
from store.deliveries import fan_out as outbox
from store.notifications import feed
from store.notifications.feed import Entry, Wanted
from store.postgres.database import Connection, Database, DatabaseUnavailable

GUARANTEED_WATCHERS = 5  # that every organization may have, however many others watch
POLL_INTERVAL = 1.0  # seconds between looks for news that nobody hinted at
SWEEP_INTERVAL = 30.0  # seconds between looks at the feeds that nobody watches here
RETRY_PAUSE = 1.0  # seconds at most before the next try while the database is away
READ_LIMIT = 500  # entries that a tail grows by in one transaction
CATCH_UP_LIMIT = 50  # entries that a watcher who is behind holds at a time
CATCH_UP_SPAN = 10_000  # places that one look for them goes through
TAIL_READERS = 2  # transactions at a time that read for tails
CATCH_UP_READERS = 2  # transactions at a time that read for single watchers; one organization has one of them

logger = logging.getLogger(__name__)


class _Watched:
    """An organization's feed that somebody watches here."""

    def __init__(self, tail: Tail, task: BackgroundTask) -> None:
        self.tail = tail
        self.task = task  # makes the tail grow; it is woken when there may be more than was read
        self.watchers = 0


class Watching:
    """A watcher of an organization's tail, which grows for as long as anybody has one."""

    def __init__(self, feeds: "Feeds", organization_id: int, watched: _Watched) -> None:
        self.tail = watched.tail
        self._feeds = feeds
        self._organization_id = organization_id
        self._open = True

    def end(self) -> None:
        """The watcher counts no more; a second time does nothing."""
        if self._open:
            self._open = False
            self._feeds.leave(self._organization_id)


class Feeds:
    """The tails of the organizations that are watched on this server.

    max_watchers: of all organizations, beside the first GUARANTEED_WATCHERS of each. organization_watchers: of one,
    which may have no more than it leaves free to the others (`may_take`).
    """

    def __init__(
        self,
        database: Database,
        *,
        max_watchers: int = DEFAULT_MAX_WATCHERS,
        organization_watchers: int = DEFAULT_ORGANIZATION_WATCHERS,
    ) -> None:
        self._database = database
        self._max_watchers = max_watchers
        self._organization_watchers = organization_watchers
        self._watched: dict[int, _Watched] = {}
        self._watchers = 0
        self._in_use = asyncio.Event()  # by anybody, at any time until now
        self._tail_readers = asyncio.Semaphore(TAIL_READERS)
        self._catch_up_gate = FairSemaphore(CATCH_UP_READERS)
        away = (DatabaseUnavailable,)  # said where the tails are read, and by health
        lost = "watching by polling only: %s", LogAction.FEED_LISTEN_LOST
        self._tasks = (
            BackgroundTask(
                self._listen,
                FailureLog(logger, "the feeds could not be listened to", LogAction.FEED_FAILED, away, *lost),
                name="feeds listen",
                interval=RETRY_PAUSE,
                backoff=Backoff(RETRY_PAUSE, RETRY_PAUSE),  # the step fails whenever a connection ends
            ),
            BackgroundTask(
                self._poll,
                FailureLog(logger, "news of the feeds could not be polled", LogAction.FEED_FAILED, away),
                name="feeds poll",
                backoff=Backoff(longest=POLL_INTERVAL),
            ),
            BackgroundTask(
                self.sweep,
                FailureLog(logger, "the feeds could not be swept", LogAction.FEED_FAILED, away),
                name="feeds sweep",
                interval=SWEEP_INTERVAL,
                first_pause=SWEEP_INTERVAL,
                backoff=Backoff(longest=SWEEP_INTERVAL),
            ),
        )
        self._growing: list[BackgroundTask] = []  # those that are about to end, too

    def start(self) -> None:
        """Begins to sweep; listens and polls once somebody watches."""
        for task in self._tasks:
            task.start()

    async def stop(self) -> None:
        """Ends every task; tails do not grow any more."""
        await asyncio.gather(*(task.stop() for task in (*self._tasks, *self._growing)))

    @property
    def watchers(self) -> int:
        """Of all organizations."""
        return self._watchers

    def watch(self, organization_id: int) -> Watching:
        """A new watcher of an organization, which has to be ended.

        Raises ResourceExhausted when there are too many.
        """
        watched = self._watched.get(organization_id)
        own = watched.watchers if watched else 0
        guaranteed = own < min(GUARANTEED_WATCHERS, self._organization_watchers)
        free = self._max_watchers - self._watchers
        if not guaranteed and (own >= self._organization_watchers or not may_take(own, free)):
            # How many others watch is not this organization's business: what it may have is.
            raise ResourceExhausted(
                error_reason_pb2.ERROR_REASON_TOO_MANY_WATCHERS,
                f"{own} streams of this organization watch this server, which is its share of it at present: end one,"
                " or try another server",
                metadata={"limit": str(own)},
            )
        if watched is None:
            watched = self._watched[organization_id] = self._begin(organization_id)
        watched.watchers += 1
        self._watchers += 1
        self._in_use.set()
        return Watching(self, organization_id, watched)

    def leave(self, organization_id: int) -> None:
        """One watcher less; `Watching.end` calls it."""
        watched = self._watched[organization_id]
        self._watchers -= 1
        watched.watchers -= 1
        if watched.watchers == 0:
            del self._watched[organization_id]
            watched.task.end()

    @contextlib.asynccontextmanager
    async def reading(self, organization_id: int) -> AsyncIterator[Connection]:
        """A transaction that reads for one watcher, in its organization's turn: many who are behind hold up no other.

        Raises DatabaseUnavailable.
        """
        async with self._catch_up_gate.seat(organization_id), self._database.transaction() as connection:
            yield connection

    async def catch_up(
        self, organization_id: int, place: int, newest: int, wanted: Wanted
    ) -> tuple[list[Entry], int]:
        """The next entries for a watcher who is behind, and the place that it has come to with them.

        `newest` is the place of the tail. Raises Forgotten and DatabaseUnavailable.
        """
        until = min(newest, place + CATCH_UP_SPAN)
        async with self.reading(organization_id) as connection:
            found = await feed.read(
                connection, organization_id, after=place, until=until, limit=CATCH_UP_LIMIT, wanted=wanted
            )
        return found, found[-1].place if len(found) == CATCH_UP_LIMIT else until

    def _begin(self, organization_id: int) -> _Watched:
        tail = Tail()

        async def grow() -> float | None:
            """Gives places to what was committed and reads on; a wake-up asks for more."""
            return 0.0 if await self._read_on(organization_id, tail) else None

        # It goes on after a fault of ours: streams that stay open without news would be worse.
        failures = FailureLog(logger, "a feed could not be read", LogAction.FEED_FAILED, (DatabaseUnavailable,))
        task = BackgroundTask(grow, failures, name=f"feed {organization_id}", backoff=Backoff(longest=RETRY_PAUSE))
        self._growing = [*(one for one in self._growing if one.is_running), task]
        task.start()
        return _Watched(tail, task)

    async def _read_on(self, organization_id: int, tail: Tail) -> bool:
        """Reads what follows the tail; returns whether there may be more."""
        begins, read = None, list[Entry]()
        async with self._tail_readers, self._database.transaction() as connection:
            placed = await feed.place(connection, organization_id, READ_LIMIT)
            try:
                if tail.place is not None:
                    read = await feed.read(connection, organization_id, after=tail.place, limit=READ_LIMIT)
            except feed.Forgotten:  # this process stood still for that long: all of its watchers are behind
                begins = await feed.extent(connection, organization_id)
            if tail.place is None:
                begins = await feed.extent(connection, organization_id)
        # Only now: what has not been committed may get another place yet.
        if begins is not None:
            tail.begin(begins.last_place)
        tail.extend(read)
        return READ_LIMIT in (placed, len(read))

    def _hint(self, organization_ids: set[int] | None) -> None:
        """Wakes the tails of those organizations, or all of them."""
        for organization_id, watched in self._watched.items():
            if organization_ids is None or organization_id in organization_ids:
                watched.task.wake()

    async def _listen(self) -> None:
        await self._in_use.wait()
        async for organization_id in outbox.notifications(self._database.url):
            self._hint(None if organization_id is None else {organization_id})

    async def _poll(self) -> float:
        await self._in_use.wait()
        seen = {
            organization_id: watched.tail.place
            for organization_id, watched in self._watched.items()
            if watched.tail.place is not None
        }
        if seen:
            async with self._tail_readers, self._database.transaction() as connection:
                self._hint(await feed.with_news(connection, seen))
        return POLL_INTERVAL

    async def sweep(self) -> None:
        """Gives every notification of every organization its place. Raises DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            waiting = collections.deque(await feed.with_pending(connection))
        while waiting:
            organization_id = waiting.popleft()
            placed = 0
            try:
                async with self._tail_readers, self._database.transaction() as connection:
                    placed = await feed.place(connection, organization_id)
            except DatabaseUnavailable as error:
                if not error.failure.contained:  # else it is this feed's alone, and the next sweep's
                    raise
            if placed == feed.PLACE_LIMIT:
                waiting.append(organization_id)  # behind the others
