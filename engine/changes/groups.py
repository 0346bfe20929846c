"""Changes together: the queue in which changes of one organization wait for their group.

A change of alerts or facts holds the organization's lock exclusively, and usage waits for it. The changes that come
while a group is in progress are the next group: they cost one lock together. While usage of the organization comes
in, groups keep a distance, so that usage waits for a bounded part of the time.
"""

import asyncio
import contextlib
import contextvars
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from engine.changes.group import ChangeGroup, Member
from engine.changes.open_change import Kind, OpenChange, Work
from engine.limits import DEFAULT_LIMITS, ChangeLimits
from engine.monitoring import ChangesMonitoring
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from store.postgres.database import Connection, Database, DriverConnection, driver

ROWS_OF_A_CHANGE = 4  # of a change that does not say how many rows it writes

Item = TypeVar("Item")
Result = TypeVar("Result")


class _OneWork:
    """The kind of a single function, which runs in the context of the call that it belongs to."""

    goes_last = False

    def __init__(self, work: Work[Any]) -> None:
        self._work = work
        self._context = contextvars.copy_context()

    def needs_preparing(self, item: None) -> bool:
        return False

    async def prepare(self, connection: Connection, organization_id: int, items: Sequence[None]) -> Sequence[None]:
        return [None]

    async def apply(self, change: OpenChange, items: Sequence[None]) -> Sequence[Any]:
        async def work() -> Any:
            return await self._work(change)

        return [await asyncio.create_task(work(), context=self._context)]


@dataclass(eq=False, slots=True)
class _Queue:
    """The changes of one organization that wait, and the task that makes them while there are any."""

    organization_id: int
    waiting: deque[Member] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class ChangeGroups:
    """Makes changes of alerts and facts, each for its own caller, in as few exclusive transactions as possible.

    How many changes of an organization can wait is limited by its share of the calls of this server.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        gate: FairSemaphore,
        is_ingesting: Callable[[int], bool],
        limits: ChangeLimits = DEFAULT_LIMITS.changes,
        *,
        max_alerts: Callable[[int], int | None] = lambda _: None,
        monitoring: ChangesMonitoring | None = None,
    ) -> None:
        """gate: the connections that calls may use; a caller must not hold a seat of it while its change waits.

        is_ingesting: whether usage of an organization is coming in at this process. max_alerts: of an organization.
        """
        self._monitoring = monitoring or ChangesMonitoring()
        self._database = database
        self._clock = clock
        self._gate = gate
        self._is_ingesting = is_ingesting
        self._limits = limits
        self._max_alerts = max_alerts
        self._queues: dict[int, _Queue] = {}
        self._draining = asyncio.Event()

    async def run(
        self,
        organization_id: int,
        work: Work[Result],
        *,
        rows: int = ROWS_OF_A_CHANGE,
        keep: bool = True,
    ) -> Result:
        """Runs `work` under the organization's exclusive lock, at a new epoch; returns its result after the commit.

        Other changes can be made in the same transaction and at the same epoch, before and after it. If `work`
        raises, what it wrote is rolled back, and nothing else. It may run more than once, and runs in the context of
        this call. A caller that is cancelled while its change waits takes it back; afterwards the change is either
        made or not, as a whole.

        rows: about how many rows it writes. keep: false, it only validates: it is rolled back, and does not raise the
        epoch. Raises DatabaseUnavailable, and what `work` raises.
        """
        return cast("Result", await self._made(organization_id, _OneWork(work), None, rows, keep))

    async def run_together(
        self, organization_id: int, kind: Kind[Item, Result], item: Item, *, rows: int = 1, keep: bool = True
    ) -> Result:
        """Makes one change of a kind, together with others of the same kind that wait; otherwise like `run`.

        The kind runs in no call's context, so the item has all that it needs.
        """
        return cast("Result", await self._made(organization_id, kind, item, rows, keep))

    @asynccontextmanager
    async def transaction(self, organization_id: int) -> AsyncIterator[Connection]:
        """A transaction of a call, in its organization's turn: for what it reads before its change.

        Calls that wait for groups hold no connection meanwhile, so each of their transactions takes a turn.
        """
        async with self._gate.seat(organization_id), self._database.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def unbegun_transaction(self, organization_id: int) -> AsyncIterator[DriverConnection]:
        """A `transaction`, as the driver's connection, that its block begins with the statement BEGIN."""
        async with self._gate.seat(organization_id), self._database.unbegun_transaction() as connection:
            yield await driver(connection)

    def is_waiting(self, organization_id: int) -> bool:
        """Whether a change of the organization waits or is in progress."""
        return organization_id in self._queues

    async def drain(self) -> None:
        """Waits until no change is waiting; groups follow each other without a distance."""
        self._draining.set()
        while tasks := [queue.task for queue in self._queues.values() if queue.task]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _made(self, organization_id: int, kind: Kind[Any, Any], item: Any, rows: int, keep: bool) -> Any:
        queue = self._queues.get(organization_id)
        if queue is None:
            queue = self._queues[organization_id] = _Queue(organization_id)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue.waiting.append(Member(kind, item, rows, keep, done))
        if queue.task is None:
            # In an empty context: what a group does for several calls belongs to none of them.
            queue.task = asyncio.create_task(self._lead(queue), name="change-groups", context=contextvars.Context())
        return await done

    async def _lead(self, queue: _Queue) -> None:
        """Makes groups until nothing waits. The changes that come during one group are the next one."""
        try:
            while queue.waiting:
                await self._pause(queue, await self._next_group(queue))
        finally:
            queue.task = None
            del self._queues[queue.organization_id]
            for member in queue.waiting:  # only if this task was cancelled
                member.done.cancel()

    async def _next_group(self, queue: _Queue) -> float:
        """Makes one group. Returns the seconds in which usage had to wait for it."""
        async with self._gate.seat(queue.organization_id):
            members = _take(queue.waiting, self._limits.rows)
            if not members:
                return 0.0
            late = functools.partial(_take_late, queue.waiting, members, self._limits.rows)
            group = ChangeGroup(
                self._database,
                self._clock,
                queue.organization_id,
                members,
                late,
                self._limits,
                self._max_alerts(queue.organization_id),
            )
            try:
                held = await group.run()
            except asyncio.CancelledError:
                for member in members:
                    member.done.cancel()
                raise
        queue.waiting.extendleft(member for member in reversed(members) if member.outcome is None)
        self._monitoring.group(len(members), held)
        for member in members:
            member.answer()
        return held

    async def _pause(self, queue: _Queue, held: float) -> None:
        """Leaves usage the rest of its time, if any is coming in."""
        pause = min(held * (1 / self._limits.share - 1), self._limits.longest_pause)
        if pause <= 0 or not self._is_ingesting(queue.organization_id):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._draining.wait()


def _take_late(waiting: deque[Member], group: list[Member], most_rows: int) -> None:
    """Adds the changes to a group that came while it waited for its lock, up to the first that cannot join it now."""
    if not group[0].shares:
        return
    rows = sum(member.rows for member in group)
    while waiting:
        member = waiting[0]
        if not member.done.done():
            rows += member.rows
            if rows > most_rows or not member.shares or member.kind.needs_preparing(member.item):
                return
            group.append(member)
        waiting.popleft()


def _take(waiting: deque[Member], most_rows: int) -> list[Member]:
    """The members of the next group. Changes whose callers have gone are left out."""
    group, rows = list[Member](), 0
    while waiting:
        member = waiting[0]
        if member.done.done():
            waiting.popleft()
            continue
        rows += member.rows
        if group and (rows > most_rows or not member.shares):
            break
        group.append(waiting.popleft())
        if not member.shares:
            break
    return group
