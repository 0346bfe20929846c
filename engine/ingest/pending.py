"""Pending events: how many events of this process wait for the database, and each organization's share of that."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from runtime.fair_semaphore import may_take
from runtime.turns import Turns, of_loop

# The events that every organization may have pending even if no room is free, as a part of the limit for all. Twenty
# organizations with one batch of 5,000 each leave nothing free: without it another one could not send a first event.
BESIDE = 100  # of 100,000 events, 1,000


class Overloaded(Exception):
    """There is no room for a batch.

    events: of the batch. pending_of_organization: the events of its organization that wait for the database, when its
    share is used up; None when the process as a whole has no room.
    """

    def __init__(self, events: int, pending_of_organization: int | None) -> None:
        super().__init__(f"no room for {events} events")
        self.events = events
        self.pending_of_organization = pending_of_organization


class Room:
    """Room for the events of one batch: the caller owns it until it is handed over, a part at a time."""

    def __init__(self, pending: "PendingEvents", organization_id: int, events: int) -> None:
        self._pending = pending
        self._organization_id = organization_id
        self._events = events

    def hand_over(self, events: int) -> "Room":
        """Room for so many of the events; the owner of the returned room gives it up."""
        assert events <= self._events
        self._events -= events
        return Room(self._pending, self._organization_id, events)

    def give_up(self) -> None:
        """Gives up what was not handed over; a second time it gives up nothing."""
        events, self._events = self._events, 0
        self._pending.subtract(self._organization_id, events)


@dataclass(eq=False, slots=True)
class _Wait:
    events: int
    admitted: asyncio.Future[None]


class PendingEvents:
    """Counts the events of each organization that were admitted and are not committed yet.

    most: of all organizations together. most_of_one: of one organization, which may besides hold no more than it
    leaves free to the others (`may_take`). beside: what every organization may hold even when nothing is free.
    """

    def __init__(self, most: int, most_of_one: int, *, beside: int = 0) -> None:
        self.most = most
        self._most_of_one = most_of_one
        self._beside = min(beside, most_of_one)
        self._total = 0
        self._own: dict[int, int] = {}
        self._waiting: OrderedDict[int, deque[_Wait]] = OrderedDict()
        self._turns: Turns | None = None  # an organization with pending events has a call in progress

    @property
    def total(self) -> int:
        """The events of all organizations."""
        return self._total

    async def admit(self, organization_id: int, events: int, *, waits: bool) -> Room:
        """Room for so many events. It has to be given up or handed over.

        waits: until there is room, in the order of the organization's waits. Otherwise raises Overloaded when
        there is none, or others of the organization wait for it.
        """
        if organization_id not in self._waiting and self._fits(organization_id, events):
            self._add(organization_id, events)
        elif waits:
            await self._wait(organization_id, events)
        else:
            raise self._refusal(organization_id, events)
        return Room(self, organization_id, events)

    def subtract(self, organization_id: int, events: int) -> None:
        """Notes that so many events of the organization are not pending any more."""
        if not events:
            return
        self._total -= events
        self._own[organization_id] -= events
        if not self._own[organization_id]:
            del self._own[organization_id]
            if self._turns is not None:
                self._turns.end_call(organization_id)
        while self._let_one_in():
            pass

    def _fits(self, organization_id: int, events: int) -> bool:
        if not self._total:
            return True  # however many they are: otherwise they would never fit
        own = self._own.get(organization_id, 0)
        if own + events <= self._beside:
            return True
        if self._next_in_line() not in (None, organization_id):
            return False
        return may_take(own, self.most - self._total, events) and (not own or own + events <= self._most_of_one)

    def _next_in_line(self) -> int | None:
        """The first waiting organization that has no pending events; None if there is none.

        Its batch does not fit at present. Until it does, others get no room beyond the guaranteed number. Otherwise
        the small batches of many organizations could fill each gap, and a large one would wait for ever.
        """
        if not self._waiting:
            return None
        return next((one for one in self._waiting if one not in self._own), None)

    def _add(self, organization_id: int, events: int) -> None:
        self._total += events
        if organization_id not in self._own:
            # Here and not for each batch: `subtract` may run when the loop has ended, so it cannot find the turns.
            self._turns = self._turns or of_loop()
            self._turns.begin_call(organization_id)
        self._own[organization_id] = self._own.get(organization_id, 0) + events

    async def _wait(self, organization_id: int, events: int) -> None:
        wait = _Wait(events, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(organization_id, deque()).append(wait)
        try:
            await wait.admitted
        except asyncio.CancelledError:
            if wait.admitted.cancelled():
                self._forget(organization_id, wait)
            else:
                self.subtract(organization_id, events)  # it had been admitted before it was cancelled
            raise

    def _forget(self, organization_id: int, wait: _Wait) -> None:
        waiting = self._waiting.get(organization_id)
        if waiting is not None and wait in waiting:
            waiting.remove(wait)
            if not waiting:
                del self._waiting[organization_id]
            # The large batch that does not wait any more kept smaller ones of its organization waiting.
            while self._let_one_in():
                pass

    def _let_one_in(self) -> bool:
        """Admits the first batch of an organization that there is room for; the organization goes to the end."""
        for organization_id, waiting in self._waiting.items():
            wait = waiting[0]
            if not wait.admitted.done() and not self._fits(organization_id, wait.events):
                continue
            waiting.popleft()
            del self._waiting[organization_id]
            if waiting:
                self._waiting[organization_id] = waiting
            # A wait that was cancelled in this pass of the loop is still in the queue; it cannot be admitted.
            if not wait.admitted.done():
                wait.admitted.set_result(None)
                self._add(organization_id, wait.events)
            return True
        return False

    def _refusal(self, organization_id: int, events: int) -> "Overloaded":
        own = self._own.get(organization_id, 0)
        return Overloaded(events, own if own or organization_id in self._waiting else None)
