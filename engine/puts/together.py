"""Work together: what several calls of one organization ask for at the same time is done in one piece."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from store.postgres.failures import unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

# Does the work for items of one organization, whose keys are distinct; returns the results in their order.
Work = Callable[[Organization, Sequence[Item]], Awaitable[Sequence[Result]]]


@dataclass(eq=False, slots=True)
class _Asked(Generic[Item, Result]):
    """An item that waits, and the futures of its callers, each of which is cancelled when its caller has gone."""

    item: Item
    callers: "list[asyncio.Future[Result]]"

    @property
    def is_wanted(self) -> bool:
        """Whether any caller still waits for it."""
        return not all(caller.done() for caller in self.callers)

    def succeed(self, result: Result) -> None:
        """Gives the callers the result."""
        for caller in self.callers:
            if not caller.done():
                caller.set_result(result)

    def fail(self, error: Exception) -> None:
        """Gives the callers the error; each has its own of the database, because it decides about another try."""
        for caller in self.callers:
            if not caller.done():
                own = error
                if isinstance(error, DatabaseUnavailable):
                    own = unavailable(error.failure, error)
                    own.__cause__ = error
                caller.set_exception(own)


@dataclass(eq=False, slots=True)
class _Queue(Generic[Item, Result]):
    """The items of one organization that wait, and the task that works while there are any."""

    organization: Organization
    waiting: "deque[_Asked[Item, Result]]" = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Together(Generic[Item, Result]):
    """Collects items while a piece of work for earlier ones is in progress; they are the next piece.

    A piece that fails is repeated item by item, unless the database failed it: then each caller gets the failure. How
    many items of an organization can wait is limited by its share of the calls of this server.
    """

    def __init__(
        self, work: Work[Item, Result], key: Callable[[Item], Hashable], most: int, *, once: bool = False
    ) -> None:
        """key: two items of the same key are never in one piece. most: items of one piece.

        once: the work is done once for items of the same key that wait, and their callers share its result.
        """
        self._work = work
        self._key = key
        self._most = most
        self._once = once
        self._queues: dict[int, _Queue[Item, Result]] = {}

    async def ask(self, organization: Organization, item: Item) -> Result:
        """Has the work done for an item, beginning after this call; returns its result."""
        queue = self._queues.get(organization.organization_id)
        if queue is None:
            queue = self._queues[organization.organization_id] = _Queue(organization)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue.waiting.append(_Asked(item, [done]))
        if queue.task is None:
            # In an empty context: what is done for several calls belongs to none of them.
            queue.task = asyncio.create_task(self._lead(queue), name="together", context=contextvars.Context())
        return await done

    async def drain(self) -> None:
        """Waits until nothing is waiting."""
        while tasks := [queue.task for queue in self._queues.values() if queue.task]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _lead(self, queue: _Queue[Item, Result]) -> None:
        piece: list[_Asked[Item, Result]] = []
        try:
            while piece := self._next(queue):
                await self._do(queue.organization, piece)
        finally:
            queue.task = None
            del self._queues[queue.organization.organization_id]
            for asked in (*piece, *queue.waiting):  # only if this task was cancelled
                for caller in asked.callers:
                    caller.cancel()

    def _next(self, queue: _Queue[Item, Result]) -> list[_Asked[Item, Result]]:
        """The next piece. Items whose callers have gone are left out."""
        piece: dict[Hashable, _Asked[Item, Result]] = {}
        later: list[_Asked[Item, Result]] = []
        while queue.waiting and len(piece) < self._most:
            asked = queue.waiting.popleft()
            if not asked.is_wanted:
                continue
            first = piece.setdefault(self._key(asked.item), asked)
            if first is asked:
                continue
            if self._once:
                first.callers += asked.callers
            else:
                later.append(asked)
        queue.waiting.extendleft(reversed(later))
        return list(piece.values())

    async def _do(self, organization: Organization, piece: Sequence[_Asked[Item, Result]]) -> None:
        try:
            results = await self._work(organization, [asked.item for asked in piece])
        except DatabaseUnavailable as error:
            for asked in piece:
                asked.fail(error)
        except Exception as error:
            if len(piece) == 1:
                piece[0].fail(error)
                return
            for asked in piece:
                await self._do(organization, [asked])
        else:
            for asked, result in zip(piece, results, strict=True):
                asked.succeed(result)
