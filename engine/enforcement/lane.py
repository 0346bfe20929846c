"""A lane: the requests that one writer of one organization has to commit, in the order in which they came."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.enforcement.attempts import Answer
from engine.enforcement.commit import EnforcementCommitter
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
    number. is_slow: its commit takes so long that other customers do not wait for it. enough: how many requests the
    next commit waits for, until a time (by `time.perf_counter`). gathered: done when so many wait.
    """

    organization_id: int
    committer: EnforcementCommitter = field(init=False)
    waiting: deque[Waiting] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    seat: Seat | None = None
    customers: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    is_slow: bool = False
    enough: int = 0
    gathers_until: float = 0.0
    gathered: asyncio.Future[None] | None = None

    def add(self, one: Waiting) -> None:
        """Takes requests, after those that wait."""
        self.waiting.append(one)
        self.requests += len(one.requests)
        customers = self.customers
        for name in one.names():
            customers[name] = customers.get(name, 0) + 1
        if self.requests >= self.enough:
            self._stop_gathering()

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

    def committed(self, requests: int, seconds: float, longest: float) -> None:
        """Notes the commit that has just ended: how many requests it had, and how long it took; for `gather`."""
        self.enough = requests // 2
        self.gathers_until = time.perf_counter() + min(seconds / 2, longest)

    async def gather(self) -> None:
        """Waits until half as many requests wait as the last commit had, or half of its duration has passed.

        A commit costs more than a request. Many callers, each of which sends its next request after an answer, would
        otherwise fall apart into small groups: the first one that is back would begin a commit alone. After a commit
        of up to three requests, and with a caller or two, there is no wait.
        """
        remaining = self.gathers_until - time.perf_counter()
        if self.requests >= self.enough or remaining <= 0:
            return
        loop = asyncio.get_running_loop()
        self.gathered = loop.create_future()
        timer = loop.call_later(remaining, self._stop_gathering)
        try:
            await self.gathered
        finally:
            timer.cancel()
            self.gathered = None

    def _stop_gathering(self) -> None:
        if self.gathered is not None and not self.gathered.done():
            self.gathered.set_result(None)

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
