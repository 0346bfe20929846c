"""A semaphore that organizations share fairly, for example the connections that their calls may use at once."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.turns import of_loop

_MOST_TAGS = 1_000  # organizations; above it, those that are not ahead of the others are removed


def may_take(own: int, free: int, wanted: int = 1) -> bool:
    """Whether an organization that has `own` of something may take `wanted` more of the `free` rest.

    It may not have more than it leaves free. So one organization gets at most a half, two get a third each, and an
    organization that has nothing finds something free, for any number of other organizations.
    """
    return wanted <= free and (own == 0 or own + wanted <= free)


class Seat:
    """A seat that a task holds."""

    def __init__(self, semaphore: "FairSemaphore", organization_id: int, *, is_heavy: bool) -> None:
        self._semaphore = semaphore
        self._organization_id = organization_id
        self._is_heavy = is_heavy
        self._is_held = True

    async def renew(self) -> None:
        """Lets the waits before this one have their turn, between two parts of long work: gives the seat back, and
        waits for another one."""
        self.give_back()
        self._is_heavy = await self._semaphore.take(self._organization_id)
        self._is_held = True

    def give_back(self) -> None:
        """Gives the seat back; does nothing when it is not held."""
        if self._is_held:
            self._is_held = False
            self._semaphore.give_back(self._organization_id, is_heavy=self._is_heavy)


class FairSemaphore:
    """A number of seats. An organization may not have more of them than it leaves free (`may_take`).

    Of the organizations that wait, the one that was charged least (`charge`) gets the next seat; equal ones get seats
    in rotation, and the waits of one organization keep their order. A task that has a seat must not wait for another
    seat of the same semaphore: two such tasks would wait for each other.

    The order is start-time fair queueing. Each organization has a tag, the sum of its charges, and the tag of the
    organization that was served last is the semaphore's time. A tag is never behind this time when a wait is served,
    so an organization that was idle saves nothing up. Charges are finite and the time rises with them, so every wait
    becomes the first one.

    reserved: seats that heavy organizations (see `runtime.turns`) leave to the others. So another one finds a seat
    although many organizations that hold one each have taken all of their part.

    While a light organization has calls in progress, and shortly after, a heavy one gets half of its part, and all
    heavy ones together get half of their seats, rounded up: what they do with them uses the processor that the calls
    of the other one need, and a seat that is taken between two of these calls is not free for the second one.
    """

    def __init__(self, seats: int, *, reserved: int = 0) -> None:
        assert reserved < seats
        self.seats = seats
        self.waits = 0  # that have ended so far
        self.wait_seconds = 0.0  # of all of them
        self._free = seats
        self._heavy_free = seats - reserved  # that heavy organizations may take
        # Of these, the ones that heavy organizations leave free beside a light one.
        self._kept_free = (seats - reserved) // 2
        self._own: dict[int, int] = {}
        self._waiting: OrderedDict[int, deque[asyncio.Future[bool]]] = OrderedDict()
        self._tags: dict[int, float] = {}
        self._time = 0.0

    @property
    def free(self) -> int:
        """The number of free seats."""
        return self._free

    @property
    def waiting(self) -> int:
        """The number of waits for a seat."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def seat(self, organization_id: int) -> AsyncIterator[Seat]:
        """Waits for a seat, and holds it within the block."""
        seat = Seat(self, organization_id, is_heavy=await self.take(organization_id))
        try:
            yield seat
        finally:
            seat.give_back()

    def charge(self, organization_id: int, cost: float) -> None:
        """Charges an organization for what it does with its seat.

        cost: 0 or more, in a unit that is the same for all organizations of this semaphore.
        """
        self._tags[organization_id] = max(self._time, self._tags.get(organization_id, 0.0)) + cost
        if len(self._tags) > _MOST_TAGS:
            self._tags = {one: tag for one, tag in self._tags.items() if tag > self._time}

    async def take(self, organization_id: int) -> bool:
        """Waits for a seat; returns whether it is one of those for heavy organizations. `give_back` must follow."""
        # A wait of this organization that exists already may not take a seat, so this one must not overtake it.
        if organization_id not in self._waiting:
            is_heavy = of_loop().is_heavy(organization_id)
            if self._may_take(organization_id, is_heavy=is_heavy):
                self._grant(organization_id, is_heavy=is_heavy)
                return is_heavy
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organization_id, deque()).append(granted)
        began = time.perf_counter()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._forget(organization_id, granted)
            else:
                self.give_back(organization_id, is_heavy=granted.result())  # it was granted before the cancellation
            raise
        finally:
            self.waits += 1
            self.wait_seconds += time.perf_counter() - began

    def _may_take(self, organization_id: int, *, is_heavy: bool) -> bool:
        own = self._own.get(organization_id, 0)
        if is_heavy:
            if not self._heavy_free:
                return False
            if of_loop().has_or_had_light_neighbour(organization_id) and (
                self._heavy_free <= self._kept_free or (own and own + 1 > self._free // 2)
            ):
                return False
        return may_take(own, self._free)

    def _grant(self, organization_id: int, *, is_heavy: bool) -> None:
        self._time = max(self._time, self._tags.get(organization_id, 0.0))
        self._free -= 1
        self._heavy_free -= is_heavy
        self._own[organization_id] = self._own.get(organization_id, 0) + 1

    def _forget(self, organization_id: int, wait: "asyncio.Future[bool]") -> None:
        waiting = self._waiting.get(organization_id)
        if waiting is not None and wait in waiting:
            waiting.remove(wait)
            if not waiting:
                del self._waiting[organization_id]

    def give_back(self, organization_id: int, *, is_heavy: bool) -> None:
        """Gives back a seat that was taken; `is_heavy` is what `take` returned."""
        self._free += 1
        self._heavy_free += is_heavy
        self._own[organization_id] -= 1
        if not self._own[organization_id]:
            del self._own[organization_id]
        while self._free and self._let_one_in():
            pass

    def _let_one_in(self) -> bool:
        """Grants a seat to the waiting organization that was charged least, of those that may take one."""
        turns, found, least = of_loop(), None, 0.0
        for organization_id in self._waiting:
            tag = max(self._time, self._tags.get(organization_id, 0.0))
            if (found is None or tag < least) and self._may_take(
                organization_id, is_heavy=turns.is_heavy(organization_id)
            ):
                found, least = organization_id, tag
        if found is None:
            return False
        waiting = self._waiting.pop(found)
        # A wait that is cancelled in this pass of the loop is still in the queue; it gets no seat.
        granted = waiting.popleft()
        if waiting:
            self._waiting[found] = waiting  # after the other organizations
        if not granted.done():
            is_heavy = turns.is_heavy(found)
            granted.set_result(is_heavy)
            self._grant(found, is_heavy=is_heavy)
        return True
