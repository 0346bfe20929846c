"""The gate: seats that organizations share, such as the connections that their calls may use at a time."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def may_take(own: int, free: int, wanted: int = 1) -> bool:
    """Whether an organization that has `own` of something may take `wanted` more of what is `free`.

    It may have no more than it leaves to the others: one organization gets half of everything, two get a third each,
    and an organization that has nothing finds something free, however many others take what they can.
    """
    return wanted <= free and (own == 0 or own + wanted <= free)


class FairGate:
    """A number of seats. An organization may have no more of them than it leaves free (`may_take`).

    Organizations that wait have turns; the waits of one organization are served in their order. A task that has a
    seat must not wait for another one of the same gate: two such tasks would wait for each other.
    """

    def __init__(self, seats: int) -> None:
        self._free = seats
        self._own: dict[int, int] = {}
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def free(self) -> int:
        """How many seats are not taken."""
        return self._free

    @asynccontextmanager
    async def seat(self, organization_id: int) -> AsyncIterator[None]:
        """Has a seat for as long as the block lasts, after waiting for it."""
        await self._take(organization_id)
        try:
            yield
        finally:
            self._give_back(organization_id)

    async def _take(self, organization_id: int) -> None:
        # An organization that waits already gets the next seat in its turn: a new task must not overtake it.
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
                self._give_back(organization_id)  # it had been given one before it was cancelled
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
        """Gives a seat to the first organization in the order of turns that may take one."""
        for organization_id, waiting in self._waiting.items():
            if not may_take(self._own.get(organization_id, 0), self._free):
                continue
            # One that is cancelled in this pass of the loop is still here; it can be given nothing.
            granted = waiting.popleft()
            del self._waiting[organization_id]
            if waiting:
                self._waiting[organization_id] = waiting  # behind the others
            if not granted.done():
                granted.set_result(None)
                self._grant(organization_id)
            return True
        return False
