"""A semaphore that organizations share fairly, for example the connections that their calls may use at once."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def may_take(own: int, free: int, wanted: int = 1) -> bool:
    """Whether an organization that has `own` of something may take `wanted` more of the `free` rest.

    It may not have more than it leaves free. So one organization gets at most a half, two get a third each, and an
    organization that has nothing finds something free, for any number of other organizations.
    """
    return wanted <= free and (own == 0 or own + wanted <= free)


class FairSemaphore:
    """A number of seats. An organization may not have more of them than it leaves free (`may_take`).

    Waiting organizations get seats in rotation; the waits of one organization, in their order. A task that has a seat
    must not wait for another seat of the same semaphore: two such tasks would wait for each other.
    """

    def __init__(self, seats: int) -> None:
        self._free = seats
        self._own: dict[int, int] = {}
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def free(self) -> int:
        """The number of free seats."""
        return self._free

    @asynccontextmanager
    async def seat(self, organization_id: int) -> AsyncIterator[None]:
        """Waits for a seat, and holds it within the block."""
        await self._take(organization_id)
        try:
            yield
        finally:
            self._give_back(organization_id)

    async def _take(self, organization_id: int) -> None:
        # A wait of this organization that exists already may not take a seat, so this one must not overtake it.
        if organization_id not in self._waiting and may_take(self._own.get(organization_id, 0), self._free):
            self._grant(organization_id)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organization_id, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._forget(organization_id, granted)
            else:
                self._give_back(organization_id)  # a seat was granted before the cancellation
            raise

    def _grant(self, organization_id: int) -> None:
        self._free -= 1
        self._own[organization_id] = self._own.get(organization_id, 0) + 1

    def _forget(self, organization_id: int, wait: "asyncio.Future[None]") -> None:
        waiting = self._waiting.get(organization_id)
        if waiting is not None and wait in waiting:
            waiting.remove(wait)
            if not waiting:
                del self._waiting[organization_id]

    def _give_back(self, organization_id: int) -> None:
        self._free += 1
        self._own[organization_id] -= 1
        if not self._own[organization_id]:
            del self._own[organization_id]
        while self._free and self._let_one_in():
            pass

    def _let_one_in(self) -> bool:
        """Grants a seat to the first waiting organization that may take one."""
        for organization_id, waiting in self._waiting.items():
            if not may_take(self._own.get(organization_id, 0), self._free):
                continue
            # A wait that is cancelled in this pass of the loop is still in the queue; it gets no seat.
            granted = waiting.popleft()
            del self._waiting[organization_id]
            if waiting:
                self._waiting[organization_id] = waiting  # after the other organizations
            if not granted.done():
                granted.set_result(None)
                self._grant(organization_id)
            return True
        return False
