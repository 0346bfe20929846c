"""The feeds that have subscribers on this server: committed notifications get positions, and the tails grow.

One connection of the process listens for commits. Polling finds the commits that this connection has missed. A sweep
gives positions to the notifications of feeds without subscribers, so that a new stream begins quickly.
"""

import asyncio
import collections
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.configuration import DEFAULT_MAX_WATCHERS, DEFAULT_ORGANIZATION_WATCHERS
from runtime.fair_semaphore import FairSemaphore, may_take
from runtime.tasks import BackgroundTask, FailureLog
from runtime.turns import Pieces
from server.alerts.subscribers.feed_limits import DEFAULT_FEED_LIMITS, FeedLimits
from server.alerts.subscribers.tail import Tail
from server.calls.errors import ResourceExhausted, exhausted_by_organization
from store.deliveries import outbox
from store.identity import organizations
from store.notifications import feed
from store.notifications.feed import FeedEntry, NotificationFilter
from store.notifications.placed import PendingRow, Placed
from store.notifications.placing import assign_positions
from store.notifications.unseen import UnseenWait
from store.postgres.database import Connection, Database, DatabaseUnavailable

GUARANTEED_SUBSCRIBERS = 5  # of each organization, however many others have
SWEEP_INTERVAL = 30.0  # seconds between sweeps of the feeds without subscribers
TAIL_READERS = 2  # transactions that read for tails at the same time
CATCH_UP_READERS = 2  # transactions that read for single subscribers at the same time; an organization has one

logger = logging.getLogger(__name__)


class _Feed:
    """An organization's feed that has subscribers on this server."""

    def __init__(self, tail: Tail, task: BackgroundTask) -> None:
        self.tail = tail
        self.task = task  # reads entries into the tail; woken when the feed may have more of them
        self.subscribers = 0
        self.numbers = itertools.count()  # of the subscribers


class Subscriber:
    """One subscriber of an organization's tail. The tail grows while it has subscribers."""

    def __init__(self, feeds: "Feeds", organization_id: int, subscribed: _Feed) -> None:
        self.tail = subscribed.tail
        self.number = next(subscribed.numbers)
        self._feeds = feeds
        self._organization_id = organization_id
        self._open = True

    async def catch_up(self, position: int, wanted: NotificationFilter) -> tuple[list[FeedEntry], int]:
        """The next entries for this subscriber, which is behind the tail; see `Feeds.catch_up`."""
        assert self.tail.position is not None, "only a tail that was read can be ahead"
        return await self._feeds.catch_up(self._organization_id, position, self.tail.position, wanted)

    def end(self) -> None:
        """Ends the subscription; does nothing when it has ended."""
        if self._open:
            self._open = False
            self._feeds.leave(self._organization_id)


class Feeds:
    """The tails of the organizations that have subscribers on this server.

    max_subscribers: of all organizations, beside the first GUARANTEED_SUBSCRIBERS of each.
    organization_subscribers: of one organization. It may never have more than it leaves free (`may_take`).
    """

    def __init__(
        self,
        database: Database,
        *,
        max_subscribers: int = DEFAULT_MAX_WATCHERS,
        organization_subscribers: int = DEFAULT_ORGANIZATION_WATCHERS,
        limits: FeedLimits = DEFAULT_FEED_LIMITS,
    ) -> None:
        self._database = database
        self._limits = limits
        self._max_subscribers = max_subscribers
        self._organization_subscribers = organization_subscribers
        self._feeds: dict[int, _Feed] = {}
        self._subscribers = 0
        self._in_use = asyncio.Event()  # set by the first subscriber
        self._tail_readers = asyncio.Semaphore(TAIL_READERS)
        self.catch_up_gate = FairSemaphore(CATCH_UP_READERS)
        self._waits: dict[int, UnseenWait] = {}  # of the sweeps, by organization
        self._tasks = self._background_tasks()
        self._next_read_of_nodes = 0.0  # of a cluster, by the event loop's clock
        self._growing: list[BackgroundTask] = []  # including tasks that are about to end

    def _background_tasks(self) -> tuple[BackgroundTask, ...]:
        retry_pause = self._limits.retry_pause
        unavailable = (DatabaseUnavailable,)  # not logged: the health service reports it
        lost = "notifications are found by polling only: %s", LogAction.FEED_LISTEN_LOST
        return (
            BackgroundTask(
                self._listen,
                FailureLog(
                    logger,
                    "the connection that listens for commits failed",
                    LogAction.FEED_FAILED,
                    unavailable,
                    *lost,
                ),
                name="feeds listen",
                interval=retry_pause,
                backoff=Backoff(retry_pause, retry_pause),  # the step fails when its connection ends
            ),
            BackgroundTask(
                self._poll,
                FailureLog(logger, "the poll for notifications failed", LogAction.FEED_FAILED, unavailable),
                name="feeds poll",
                backoff=Backoff(longest=self._limits.poll_interval),
            ),
            BackgroundTask(
                self.sweep,
                FailureLog(logger, "the sweep of the feeds failed", LogAction.FEED_FAILED, unavailable),
                name="feeds sweep",
                interval=SWEEP_INTERVAL,
                first_pause=SWEEP_INTERVAL,
                backoff=Backoff(longest=SWEEP_INTERVAL),
            ),
        )

    def start(self) -> None:
        """Begins to sweep; begins to listen and poll with the first subscriber."""
        for task in self._tasks:
            task.start()

    async def stop(self) -> None:
        """Ends every task. The tails do not grow after that."""
        await asyncio.gather(*(task.stop() for task in (*self._tasks, *self._growing)))

    @property
    def subscribers(self) -> int:
        """The number of subscribers of all organizations."""
        return self._subscribers

    @property
    def tails(self) -> int:
        """The number of organizations that have subscribers."""
        return len(self._feeds)

    def subscribe(self, organization_id: int) -> Subscriber:
        """A new subscriber of an organization's feed; the caller ends it.

        Raises ResourceExhausted when there are too many.
        """
        subscribed = self._feeds.get(organization_id)
        own = subscribed.subscribers if subscribed else 0
        guaranteed = own < min(GUARANTEED_SUBSCRIBERS, self._organization_subscribers)
        free = self._max_subscribers - self._subscribers
        if not guaranteed and (own >= self._organization_subscribers or not may_take(own, free)):
            # The answer has only the organization's own number, because others must not be inferred from it.
            raise ResourceExhausted(
                error_reason_pb2.ERROR_REASON_TOO_MANY_WATCHERS,
                f"this organization has {own} streams of notifications on this server, its share of the server now:"
                " end one, or use another server",
                metadata={"limit": str(own)},
                exhausted=exhausted_by_organization("its share of the streams of notifications on this server"),
            )
        if subscribed is None:
            subscribed = self._feeds[organization_id] = self._begin(organization_id)
        subscribed.subscribers += 1
        self._subscribers += 1
        self._in_use.set()
        return Subscriber(self, organization_id, subscribed)

    def leave(self, organization_id: int) -> None:
        """Counts one subscriber less; `Subscriber.end` calls it."""
        subscribed = self._feeds[organization_id]
        self._subscribers -= 1
        subscribed.subscribers -= 1
        if subscribed.subscribers == 0:
            del self._feeds[organization_id]
            subscribed.task.end()

    @contextlib.asynccontextmanager
    async def reading(self, organization_id: int) -> AsyncIterator[Connection]:
        """A transaction that reads for one subscriber, in its organization's turn.

        So many subscribers of one organization do not delay those of another. Raises DatabaseUnavailable.
        """
        async with self.catch_up_gate.seat(organization_id), self._database.transaction() as connection:
            yield connection

    async def catch_up(
        self, organization_id: int, position: int, newest: int, wanted: NotificationFilter
    ) -> tuple[list[FeedEntry], int]:
        """The next entries for a subscriber at `position`, which is behind the tail, and its position after them.

        newest: the position of the tail. Raises EntriesDeleted and DatabaseUnavailable.
        """
        until = min(newest, position + self._limits.catch_up_span)
        limit = self._limits.catch_up_entries
        async with self.reading(organization_id) as connection:
            found = await feed.read(
                connection, organization_id, after=position, until=until, limit=limit, wanted=wanted
            )
        return found, found[-1].position if len(found) == limit else until

    def _begin(self, organization_id: int) -> _Feed:
        tail = Tail(Pieces(organization_id), max_entries=self._limits.tail_entries)

        wait = UnseenWait(self._database, organization_id)

        async def grow() -> float | None:
            """Gives positions to committed notifications and reads them; 0 when there may be more."""
            more, unseen = await self._read_on(organization_id, tail)
            if more:
                return 0.0
            return None if unseen is None else await wait.pause(unseen)

        # The task goes on after a fault: without another try the streams would stay open and get no notification.
        failures = FailureLog(logger, "the read of a feed failed", LogAction.FEED_FAILED, (DatabaseUnavailable,))
        backoff = Backoff(longest=self._limits.retry_pause)
        task = BackgroundTask(grow, failures, name=f"feed {organization_id}", backoff=backoff)
        self._growing = [*(one for one in self._growing if one.is_running), task]
        task.start()
        return _Feed(tail, task)

    async def _read_on(self, organization_id: int, tail: Tail) -> tuple[bool, PendingRow | None]:
        """Reads the entries after the tail; returns whether there may be more, and for what these may wait."""
        limit = self._limits.read_entries
        async with self._tail_readers, self._database.transaction() as connection:
            placed = await assign_positions(connection, organization_id, limit)
            found = await _read_after(connection, organization_id, tail.position, limit)
            # After the entries: what is read here may have been erased since.
            [deletion_epoch] = (await organizations.deletion_epochs(connection, [organization_id])).values()
        # Only after the commit: before it, another transaction can still give other positions.
        if found.begins_at is not None:
            tail.begin(found.begins_at)
        elif deletion_epoch != tail.deletion_epoch:
            # A customer was erased. Subscribers read what is left from the database.
            tail.begin(found.entries[-1].position if found.entries else tail.position or 0)
        else:
            tail.extend(found.entries)
        tail.deletion_epoch = deletion_epoch
        if found.erased_to is not None:
            tail.skip_to(found.erased_to)
        return placed.more or len(found.entries) == limit, placed.unseen

    def _hint(self, organization_ids: set[int] | None) -> None:
        """Wakes the tails of those organizations, or all of them."""
        for organization_id, subscribed in self._feeds.items():
            if organization_ids is None or organization_id in organization_ids:
                subscribed.task.wake()

    async def _listen(self) -> None:
        await self._in_use.wait()
        async for organization_id in outbox.notifications(self._database.url):
            self._hint(None if organization_id is None else {organization_id})

    async def _poll(self) -> float:
        await self._in_use.wait()
        seen = {
            organization_id: subscribed.tail.position
            for organization_id, subscribed in self._feeds.items()
            if subscribed.tail.position is not None
        }
        if seen:
            now = asyncio.get_running_loop().time()
            all_nodes = now >= self._next_read_of_nodes
            if all_nodes:
                self._next_read_of_nodes = now + self._limits.all_nodes_interval
            async with self._tail_readers, self._database.transaction() as connection:
                self._hint(await feed.with_later_entries(connection, seen, all_nodes=all_nodes))
                deletions = await organizations.deletion_epochs(connection, seen)
            for organization_id, subscribed in self._feeds.items():
                if deletions.get(organization_id, subscribed.tail.deletion_epoch) != subscribed.tail.deletion_epoch:
                    subscribed.task.wake()
        return self._limits.poll_interval

    async def sweep(self) -> None:
        """Gives a position to every notification of every organization. Raises DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            waiting = collections.deque(await feed.with_pending_entries(connection))
        waits = dict[int, UnseenWait]()
        while waiting:
            organization_id = waiting.popleft()
            placed = Placed(0)
            try:
                async with self._tail_readers, self._database.transaction() as connection:
                    placed = await assign_positions(connection, organization_id)
                if placed.unseen is not None:
                    # The next sweep comes after the pause. By then it shows, or its key is tried.
                    waits[organization_id] = self._waits.get(organization_id) or UnseenWait(
                        self._database, organization_id
                    )
                    await waits[organization_id].pause(placed.unseen)
            except DatabaseUnavailable as error:
                # A contained failure concerns this feed only; the next sweep tries it again.
                if not error.failure.contained:
                    raise
            if placed.more:
                waiting.append(organization_id)  # after the others
        self._waits = waits


@dataclass(frozen=True, slots=True)
class _AfterTail:
    """What a feed has after a tail.

    begins_at: the position at which the tail has to begin, because nothing was read before or what follows is
    deleted. erased_to: the position up to which all entries are erased.
    """

    entries: Sequence[FeedEntry] = ()
    begins_at: int | None = None
    erased_to: int | None = None


async def _read_after(connection: Connection, organization_id: int, position: int | None, limit: int) -> _AfterTail:
    """Reads up to `limit` entries after the position of a tail; None: the tail has none yet."""
    if position is None:
        return _AfterTail(begins_at=(await feed.extent(connection, organization_id)).last_position)
    try:
        entries = await feed.read(connection, organization_id, after=position, limit=limit)
        if entries:
            return _AfterTail(entries)
        # What was assigned may be erased. The next poll must not find it again.
        last_position = (await feed.extent(connection, organization_id)).last_position
        if last_position <= position:
            return _AfterTail()
        entries = await feed.read(connection, organization_id, after=position, limit=limit)
        return _AfterTail(entries) if entries else _AfterTail(erased_to=last_position)
    except feed.EntriesDeleted:  # this process was frozen for so long: all its subscribers are behind
        return _AfterTail(begins_at=(await feed.extent(connection, organization_id)).last_position)
