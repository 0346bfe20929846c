"""The watching of decisions: one poller for all streams of this server.

It looks for customers that have changed, which is cheap, and reads the decisions about these. Beside that it reads
all that is watched, round after round, for what time and plans have changed. After each read for an organization it
waits so long that each of the two takes at most a tenth of one core, of which each organization has an equal share.
So the pause grows with what its own organization watches, and hardly with what others do.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore, may_take
from runtime.tasks import UNTIL_WOKEN, BackgroundTask, FailureLog
from server.calls.errors import ResourceExhausted
from server.enforcement.checks import CHECKS_AT_ONCE
from server.enforcement.engine import Checker
from server.enforcement.watched import Found, Reading, Subscriber, Watch, WatchedOrganization
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable

INTERVAL = 0.25  # seconds between two reads of the same decision, at least
BUSY = 0.1  # the part of the time in which the poller looks for changes, at most; the same for its rounds
LONGEST_PAUSE = 2.0  # seconds between two looks, for each organization that watches
RETRY = 1.0  # seconds until decisions whose read failed are read again
GUARANTEED_WATCHERS = 5  # streams of each organization, however many others have
GUARANTEED_DECISIONS = 1_000  # that each organization may watch, however many others do
MOST_DECISIONS = 200_000  # that are watched on a server, about 100 MB
FIRST_READERS = 2  # streams whose first decisions are read at the same time; an organization has one
FEW = 50  # decisions of a stream that are read without such a turn: reads at the same time become one

logger = logging.getLogger(__name__)


class DecisionWatch:
    """The watched decisions of this server.

    max_watchers: streams of all organizations, beside the first ones of each. organization_watchers: of one. It may
    never have more streams or decisions than it leaves free (`may_take`).
    """

    def __init__(
        self,
        checker: Checker,
        clock: Clock,
        *,
        max_watchers: int,
        organization_watchers: int,
        interval: float = INTERVAL,
        most_decisions: int = MOST_DECISIONS,
    ) -> None:
        """interval: seconds."""
        self._checker = checker
        self._clock = clock
        self._max_watchers = max_watchers
        self._organization_watchers = organization_watchers
        self._interval = interval
        self._most_decisions = most_decisions
        self._organizations: dict[int, WatchedOrganization] = {}
        self._first_readers = FairSemaphore(FIRST_READERS)
        self._task = BackgroundTask(
            self._poll,
            FailureLog(
                logger, "watched decisions cannot be read", LogAction.DECISIONS_FAILED, (DatabaseUnavailable,)
            ),
            name="decision poll",
            backoff=Backoff(longest=RETRY),
        )

    def start(self) -> None:
        """Begins to poll, with the first stream."""
        self._task.start()

    async def stop(self) -> None:
        """Ends the poll."""
        await self._task.stop()

    @property
    def watchers(self) -> int:
        """Open streams."""
        return sum(one.subscribers for one in self._organizations.values())

    @property
    def decisions(self) -> int:
        """The watched decisions, each once."""
        return sum(one.decisions for one in self._organizations.values())

    def subscribe(self, organization: Organization, watches: Sequence[Watch]) -> Subscriber:
        """One stream more; `leave` ends it. Raises ResourceExhausted when there are too many."""
        watched = self._organizations.get(organization.organization_id)
        self._check_share(watched, len(watches))
        if watched is None:
            watched = WatchedOrganization(organization, asyncio.get_running_loop().time())
            self._organizations[organization.organization_id] = watched
        subscriber = Subscriber(organization, watches)
        watched.add(subscriber)
        self._task.wake()
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Ends a stream."""
        watched = self._organizations[subscriber.organization.organization_id]
        watched.remove(subscriber)
        if not watched.subscribers:
            del self._organizations[subscriber.organization.organization_id]

    def watched(self, subscriber: Subscriber) -> WatchedOrganization:
        """What is watched of the organization of an open stream."""
        return self._organizations[subscriber.organization.organization_id]

    async def read_first(self, subscriber: Subscriber) -> AsyncGenerator[None, None]:
        """Reads all decisions of a stream for the first time, in its organization's turn; yields after each part."""
        watched = self.watched(subscriber)
        for start in range(0, len(subscriber.watches), CHECKS_AT_ONCE):
            part = subscriber.watches[start : start + CHECKS_AT_ONCE]
            async with self._turn(subscriber):
                reading = self._reading()
                for watch, found in await self._read(watched, part):
                    watched.note(watch, found, reading, first_of=subscriber)
            yield

    def _turn(self, subscriber: Subscriber) -> AbstractAsyncContextManager[object]:
        """The turn of a stream to read a part of its decisions for the first time."""
        if len(subscriber.watches) <= FEW:
            return contextlib.nullcontext()
        return self._first_readers.seat(subscriber.organization.organization_id)

    async def _poll(self) -> float:
        """Reads what is due of one organization; returns the seconds until the next one is."""
        if not self._organizations:
            return UNTIL_WOKEN
        loop = asyncio.get_running_loop()
        watched = min(self._organizations.values(), key=lambda one: one.due)
        if watched.due > loop.time():
            return watched.due - loop.time()
        if watched.look_due <= watched.round_due:
            await self._look(watched)
        else:
            await self._go_round(watched)
        if not self._organizations:
            return UNTIL_WOKEN
        return max(0.0, min(one.due for one in self._organizations.values()) - loop.time())

    async def _look(self, watched: WatchedOrganization) -> None:
        """Looks for customers that have changed, and reads a part of the decisions about them."""
        loop = asyncio.get_running_loop()
        began, part = loop.time(), list[Watch]()
        try:
            if not (part := watched.next_changed(CHECKS_AT_ONCE)):
                found = await self._checker.changed(watched.organization, watched.customer_ids, watched.mark)
                watched.looked(*found, began)
                part = watched.next_changed(CHECKS_AT_ONCE)
            if part:
                reading = self._reading()
                for watch, decision in await self._read(watched, part):
                    watched.note(watch, decision, reading)
        except BaseException as error:
            watched.change_again(part)
            watched.look_due = loop.time() + RETRY
            _raise_unless_contained(error)
        else:
            longest = loop.time() + LONGEST_PAUSE * len(self._organizations)
            rested = min(self._rested(began), longest)
            watched.look_due = rested if watched.has_changed else max(rested, began + self._interval)

    async def _go_round(self, watched: WatchedOrganization) -> None:
        """Reads the next part of a round over all decisions, which finds what time and plans have changed."""
        loop = asyncio.get_running_loop()
        reading = self._reading()
        part = watched.next_part(CHECKS_AT_ONCE, reading)
        try:
            for watch, found in await self._read(watched, part):
                watched.note(watch, found, reading)
        except BaseException as error:
            watched.go_back(part)
            watched.round_due = loop.time() + RETRY
            _raise_unless_contained(error)
        else:
            watched.round_due = self._rested(reading.began)
            if (first := watched.end_of_round()) is not None:
                watched.round_due = max(watched.round_due, first.began + self._interval)

    def _rested(self, began: float) -> float:
        """When the poller may read again for an organization for which it has read since `began`."""
        ended = asyncio.get_running_loop().time()
        return ended + (ended - began) * (len(self._organizations) / BUSY - 1)

    async def _read(self, watched: WatchedOrganization, part: Sequence[Watch]) -> list[tuple[Watch, Found]]:
        """The decisions about a part of what is watched. Raises DatabaseUnavailable."""
        found: list[tuple[Watch, Found]] = []
        for policy, of_policy in itertools.groupby(part, key=lambda watch: watch.policy):
            watches = list(of_policy)
            usages = [watch.template.of(watch.customer_id) for watch in watches]
            decisions = await self._checker.check(watched.organization, usages, policy)
            found += zip(watches, decisions, strict=True)
        return found

    def _reading(self) -> Reading:
        return Reading(self._clock.now(), asyncio.get_running_loop().time())

    def _check_share(self, watched: WatchedOrganization | None, wanted: int) -> None:
        """Raises ResourceExhausted for a stream above its organization's share, or with decisions above it."""
        streams, decisions = (watched.subscribers, watched.decisions) if watched else (0, 0)
        guaranteed = streams < min(GUARANTEED_WATCHERS, self._organization_watchers)
        free = self._max_watchers - self.watchers
        if not guaranteed and (streams >= self._organization_watchers or not may_take(streams, free)):
            raise _too_many(f"{streams} open streams of decisions", streams)
        free = self._most_decisions - self.decisions
        if decisions + wanted > GUARANTEED_DECISIONS and not may_take(decisions, free, wanted):
            raise _too_many(f"{decisions} watched decisions", decisions)


def _raise_unless_contained(error: BaseException) -> None:
    """Raises an error that concerns more than the organization for which was read."""
    if not isinstance(error, DatabaseUnavailable) or not error.failure.contained:
        raise error


def _too_many(what: str, own: int) -> ResourceExhausted:
    # The answer has only the organization's own number, because others must not be inferred from it.
    return ResourceExhausted(
        error_reason_pb2.ERROR_REASON_TOO_MANY_WATCHERS,
        f"this organization has {what} on this server, its share of the server now: end some, or use another server",
        metadata={"limit": str(own)},
    )
