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
    """An item that waits, and the future of its caller, which is cancelled when the caller has gone."""

    item: Item
    done: "asyncio.Future[Result]"


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

    def __init__(self, work: Work[Item, Result], key: Callable[[Item], Hashable], most: int) -> None:
        """key: two items of the same key are never in one piece. most: items of one piece."""
        self._work = work
        self._key = key
        self._most = most
        self._queues: dict[int, _Queue[Item, Result]] = {}

    async def ask(self, organization: Organization, item: Item) -> Result:
        """Has the work done for an item, beginning after this call; returns its result."""
        queue = self._queues.get(organization.organization_id)
        if queue is None:
            queue = self._queues[organization.organization_id] = _Queue(organization)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue.waiting.append(_Asked(item, done))
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
                asked.done.cancel()

    def _next(self, queue: _Queue[Item, Result]) -> list[_Asked[Item, Result]]:
        """The next piece. Items whose callers have gone are left out."""
        piece: dict[Hashable, _Asked[Item, Result]] = {}
        later: list[_Asked[Item, Result]] = []
        while queue.waiting and len(piece) < self._most:
            asked = queue.waiting.popleft()
            if asked.done.done():
                continue
            if piece.setdefault(self._key(asked.item), asked) is not asked:
                later.append(asked)
        queue.waiting.extendleft(reversed(later))
        return list(piece.values())

    async def _do(self, organization: Organization, piece: Sequence[_Asked[Item, Result]]) -> None:
        try:
            results = await self._work(organization, [asked.item for asked in piece])
        except DatabaseUnavailable as error:
            for asked in piece:
                own = error if len(piece) == 1 else unavailable(error.failure)
                _fail(asked, own)
        except Exception as error:
            if len(piece) == 1:
                _fail(piece[0], error)
                return
            for asked in piece:
                await self._do(organization, [asked])
        else:
            for asked, result in zip(piece, results, strict=True):
                if not asked.done.done():
                    asked.done.set_result(result)


def _fail(asked: _Asked[Item, Result], error: Exception) -> None:
    if not asked.done.done():
        asked.done.set_exception(error)
