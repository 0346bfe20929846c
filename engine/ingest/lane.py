"""A lane: the batches that one writer of one organization has to commit, and the order in which it takes them.

A commit that fails for what it writes is divided until the events that cannot be recorded are found. Meanwhile the
customers of its events are held, and the lane goes on with batches of other customers.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.ingest.batches import Batch, Outcome, add_part
from engine.ingest.commit import Committer, at_once
from engine.ingest.commit_size import CommitSize
from engine.ingest.pending import Room
from runtime.fair_semaphore import FairSemaphore, Seat

EXAMINED_EVENTS = 20_000  # of the batches among which a lane with held customers looks for those of others


@dataclass(eq=False, slots=True)
class Waiting:
    """A batch, or a writer's part of one, that waits for its commit.

    A large one may take several commits. committed: the number of its events that are committed, with this outcome.
    taken: the number of those after them that the commit in progress takes. since: when its wait began, by
    `time.perf_counter`.
    """

    batch: Batch
    done: asyncio.Future[Outcome]
    room: Room
    committed: int = 0
    taken: int = 0
    outcome: Outcome | None = None
    since: float = field(default_factory=time.perf_counter)

    @property
    def events(self) -> int:
        """The number of its events that are not committed yet."""
        return len(self.batch.events) - self.committed

    @property
    def part(self) -> Batch:
        """What the commit in progress takes."""
        batch, start, end = self.batch, self.committed, self.committed + self.taken
        return batch if self.taken == len(batch.events) else batch.part(batch.events[start:end])

    def succeed(self, outcome: Outcome) -> None:
        """Notes that what was taken is committed, with this outcome; answers the batch when that was the rest."""
        is_last = self.taken == self.events
        if self.taken != len(self.batch.events):
            whole = self.outcome = self.outcome or Outcome()
            add_part(whole, outcome, range(self.committed, self.committed + self.taken))
            outcome = whole
        self.room.hand_over(self.taken).give_up()
        self.committed += self.taken
        self.since = time.perf_counter()
        if is_last and not self.done.done():  # its caller may have cancelled the call
            self.done.set_result(outcome)


@dataclass(eq=False, slots=True)
class Lane:
    """The batches that wait, and the task that runs while there are any.

    last_end: of the last commit, by the event loop's clock. size: the limit of commits. gate: has the seats for its
    commits. division_gate: has those for a division; None: its commits take seats by themselves. seat: of the commit
    in progress. division: of a commit that failed, with its customers in `held`. changed: a lane that waits for a
    division is woken by it.
    """

    organization_id: int
    last_end: float
    size: CommitSize
    gate: FairSemaphore
    division_gate: FairSemaphore | None
    committer: Committer = field(init=False)
    waiting: deque[Waiting] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    seat: Seat | None = None
    division: asyncio.Task[None] | None = None
    held: Set[str] = frozenset()
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, waiting: Waiting) -> None:
        """Adds a batch at the end."""
        self.waiting.append(waiting)
        self.changed.set()

    def log_fields(self) -> Mapping[str, Any]:
        """The fields of each log line of its commits, which belong to no single call."""
        return {"organization_id": self.organization_id}

    async def renew_seat(self) -> None:
        """Lets other organizations have their turn between two commits."""
        assert self.seat is not None
        await self.seat.renew()

    @asynccontextmanager
    async def seat_of_division(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """A seat for a division; gives what lets other organizations have their turn between two of its commits."""
        if self.division_gate is None:
            yield at_once
        else:
            async with self.division_gate.seat(self.organization_id) as seat:
                yield seat.renew

    def take(self, limit: int, *, divides: bool) -> list[Waiting]:
        """The batches of the next commit, with at most `limit` events; none if all of them wait for a division.

        Of a first batch that has more, only so many are taken if `divides`, and the rest stays first in the queue;
        otherwise all of them. Beside a division, batches are not divided.
        """
        if self.division is None:
            return _take(self.waiting, limit, divides=divides)
        free = _of_others(self.waiting, self.held)
        group = _take(free, limit, divides=False) if free else []
        taken = set(map(id, group))
        self.waiting = deque(one for one in self.waiting if id(one) not in taken)
        return group

    def hold(self, group: Iterable[Waiting], division: asyncio.Task[None]) -> None:
        """Notes that a task divides a group whose commit has failed."""
        self.held = _customers(group)
        self.division = division

    def release(self) -> None:
        """Notes that the division has ended."""
        self.held, self.division = frozenset(), None
        self.changed.set()


def _of_others(waiting: Iterable[Waiting], held: Set[str]) -> deque[Waiting]:
    """The batches that may be committed before the events of held customers, and before those that wait for them."""
    blocked, free, examined = set(held), deque[Waiting](), 0
    for one in waiting:
        if examined > EXAMINED_EVENTS:
            break
        examined += one.events
        customers = _customers([one])
        if blocked.isdisjoint(customers):
            free.append(one)
        else:
            blocked |= customers  # a customer's batches keep their order
    return free


def _customers(group: Iterable[Waiting]) -> Set[str]:
    return {event.customer_id for one in group for event in one.batch.events}


def _take(waiting: deque[Waiting], limit: int, *, divides: bool) -> list[Waiting]:
    first = waiting[0]
    if divides and first.events > limit:
        first.taken = limit
        return [first]
    group, size = [waiting.popleft()], first.events
    while waiting and size + waiting[0].events <= limit:
        size += waiting[0].events
        group.append(waiting.popleft())
    for one in group:
        one.taken = one.events
    return group
