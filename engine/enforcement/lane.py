"""A lane: the requests that one writer of one organization has to commit, in the order in which they came."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.enforcement.attempts import Answer
from engine.enforcement.commit import EnforcementCommitter
from engine.enforcement.gathering import Gathering
from engine.enforcement.requests import Request
from engine.ingest.pending import Room
from runtime.fair_semaphore import Seat


@dataclass(eq=False, slots=True)
class Waiting:
    """Requests that were sent together, or a writer's part of them.

    tops: of customers that have others above them, the highest. since: by `time.perf_counter`.
    """

    requests: Sequence[Request]
    tops: Mapping[str, str]
    done: asyncio.Future[list[Answer]]
    room: Room
    since: float = field(default_factory=time.perf_counter)

    def names(self) -> list[str]:
        """The customers of the requests, and the highest above them."""
        customers = [request.customer_id for request in self.requests]
        if self.tops:
            customers += [self.tops[one] for one in customers if one in self.tops]
        return customers

    def succeed(self, answers: list[Answer]) -> None:
        """Answers them."""
        self.room.give_up()
        if not self.done.done():  # its caller may have cancelled the call
            self.done.set_result(answers)

    def fail(self, error: BaseException) -> None:
        """Ends them with an error."""
        self.room.give_up()
        if isinstance(error, Exception) and not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class Lane:
    """What waits, and the task that runs while anything does. seat: of the commit in progress.

    requests: how many wait or are being committed. customers: of these, and the highest above them, with their
    number. is_slow: its commit takes so long that other customers do not wait for it.
    gathering: how long the next commit waits.
    """

    organization_id: int
    committer: EnforcementCommitter = field(init=False)
    waiting: deque[Waiting] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    seat: Seat | None = None
    customers: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    is_slow: bool = False
    gathering: Gathering = field(default_factory=Gathering)

    def add(self, one: Waiting) -> None:
        """Takes requests, after those that wait."""
        self.waiting.append(one)
        self.requests += len(one.requests)
        customers = self.customers
        for name in one.names():
            customers[name] = customers.get(name, 0) + 1
        self.gathering.arrived(self.requests)

    def finished(self, group: Sequence[Waiting]) -> None:
        """Forgets requests that have ended."""
        customers = self.customers
        for one in group:
            self.requests -= len(one.requests)
            for name in one.names():
                if customers[name] == 1:
                    del customers[name]
                else:
                    customers[name] -= 1

    def take(self, limit: int) -> list[Waiting]:
        """What the next commit decides: the first, and as many after it as fit into the limit of requests."""
        group = [self.waiting.popleft()]
        size = len(group[0].requests)
        while self.waiting and size + len(self.waiting[0].requests) <= limit:
            size += len(self.waiting[0].requests)
            group.append(self.waiting.popleft())
        return group

    def pass_on(self, group: Sequence[Waiting]) -> list[Waiting]:
        """Takes out what shares no customer with the commit of `group`, nor with what therefore stays."""
        staying, size = {name for one in group for name in one.names()}, 0
        while len(staying) > size:
            size = len(staying)
            for one in self.waiting:
                if not staying.isdisjoint(names := one.names()):
                    staying.update(names)
        passed = [one for one in self.waiting if staying.isdisjoint(one.names())]
        self.waiting = deque(one for one in self.waiting if not staying.isdisjoint(one.names()))
        self.finished(passed)
        return passed

    def log_fields(self) -> Mapping[str, Any]:
        """The fields of each log line of its commits, which belong to no single call."""
        return {"organization_id": self.organization_id}

    async def renew_seat(self) -> None:
        """Lets other organizations have their turn between two commits."""
        assert self.seat is not None
        await self.seat.renew()
