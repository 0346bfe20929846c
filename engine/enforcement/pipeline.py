"""The pipeline of enforcement: queues requests, and decides all that wait in one commit.

Groups form by themselves: the requests that arrive while a commit is in progress make up the next one, and after a
large one those that arrive a little later, too (`Gathering`). A request that arrives alone waits for no other. Few
requests share one lane, because a commit costs more than a request; further lanes open with the number of requests.
"""

import asyncio
import contextvars
import time
import zlib
from collections.abc import Mapping, Sequence
from datetime import timedelta

from engine.enforcement.attempts import Answer
from engine.enforcement.commit import EnforcementCommitter
from engine.enforcement.lane import Lane, Waiting
from engine.enforcement.monitoring import EnforcementMonitoring
from engine.enforcement.requests import Request
from engine.ingest.pending import Overloaded, PendingEvents, Room
from engine.limits import DEFAULT_LIMITS, EnforcementLimits
from engine.rules.registry import RulesRegistry
from runtime import log_fields
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import Database

COMMIT_COST = 50  # what a commit costs beside its requests, as a number of requests


class EnforcementPipeline:
    """Takes requests and answers each once its decision is durable.

    writers: transactions side by side for one organization, at most. Customers below the same one always have the
    same writer, so that their requests are decided in the order in which they came, and do not wait for each other's
    locks. pending, gate: those of ingest, so that an organization has one share of both. rules: not those of ingest,
    where each customer has one writer.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        *,
        writers: int,
        pending: PendingEvents,
        gate: FairSemaphore,
        rules: RulesRegistry | None = None,
        limits: EnforcementLimits = DEFAULT_LIMITS.enforcement,
        native: bool = True,
        monitoring: EnforcementMonitoring | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._grace = grace
        self._writers = writers
        self._pending = pending
        self._gate = gate
        self._rules = rules or RulesRegistry()
        self._limits = limits
        self._native = native
        self._monitoring = monitoring or EnforcementMonitoring()
        self._lanes: dict[int, list[Lane]] = {}

    async def admit(self, organization: Organization, requests: int, *, waits: bool = False) -> Room:
        """Room for requests, before anything is done for them; see `PendingEvents.admit`."""
        try:
            return await self._pending.admit(organization.organization_id, requests, waits=waits)
        except Overloaded:
            self._monitoring.refused_calls += 1
            raise

    async def submit(
        self, organization: Organization, requests: Sequence[Request], room: Room | None = None
    ) -> list[Answer]:
        """Decides requests together with others that wait; returns when all of it is durable.

        room: for at least the requests, for which it is handed over, at once; None: they are admitted here. The wait
        may be cancelled; the commit goes on. Raises Overloaded, and DatabaseUnavailable when some of the requests may
        not be stored: to send all of them again is safe.
        """
        if not requests:
            return []
        if room is None:
            room = await self.admit(organization, len(requests))
        lanes = self._lanes_of(organization)
        parts, tops = self._divide(organization.organization_id, lanes, requests)
        if len(parts) == 1:
            [number] = parts
            return await self._enqueue(lanes[number], requests, tops, room.hand_over(len(requests)))
        futures = [
            self._enqueue(lanes[number], [requests[index] for index in indexes], tops, room.hand_over(len(indexes)))
            for number, indexes in parts.items()
        ]
        done = await asyncio.gather(*futures, return_exceptions=True)
        answers: list[Answer | None] = [None] * len(requests)
        for indexes, result in zip(parts.values(), done, strict=True):
            # Only when every part has ended: a caller that gets a failure may send again at once.
            if isinstance(result, BaseException):
                raise result
            for index, answer in zip(indexes, result, strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    async def drain(self) -> None:
        """Waits until nothing is waiting."""
        while tasks := [lane.task for lanes in self._lanes.values() for lane in lanes if lane.task]:
            await asyncio.gather(*tasks, return_exceptions=True)

    def _lanes_of(self, organization: Organization) -> list[Lane]:
        lanes = self._lanes.get(organization.organization_id)
        if lanes is None:
            if len(self._lanes) >= self._limits.idle_organizations:
                self._lanes = {key: kept for key, kept in self._lanes.items() if any(lane.task for lane in kept)}
            lanes = [self._lane(organization) for _ in range(self._writers)]
            self._lanes[organization.organization_id] = lanes
        return lanes

    def _lane(self, organization: Organization) -> Lane:
        lane = Lane(organization.organization_id)
        lane.committer = EnforcementCommitter(
            self._database,
            self._clock,
            self._grace,
            self._rules,
            organization,
            divided_commits=self._limits.divided_commits,
            between_commits=lane.renew_seat,
            native=self._native,
            monitoring=self._monitoring,
        )
        return lane

    def _divide(
        self, organization_id: int, lanes: Sequence[Lane], requests: Sequence[Request]
    ) -> tuple[dict[int, list[int]], dict[str, str]]:
        """The indexes of each writer's requests, and the customer that is above all of each customer's, if any is."""
        router = self._rules.of(organization_id).cached
        in_progress = sum([lane.requests for lane in lanes]) + len(requests)
        open_lanes = min(self._writers, 1 + in_progress // self._limits.lane_requests)
        known, tops = dict[str, int](), dict[str, str]()
        parts: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            customer_id = request.customer_id
            number = known.get(customer_id)
            if number is None:
                top = router.top_known(customer_id)
                if top != customer_id:
                    tops[customer_id] = top
                number = known[customer_id] = _number(lanes, open_lanes, customer_id, top)
            parts.setdefault(number, []).append(index)
        return parts, tops

    def _enqueue(
        self, lane: Lane, requests: Sequence[Request], tops: Mapping[str, str], room: Room
    ) -> asyncio.Future[list[Answer]]:
        future = asyncio.get_running_loop().create_future()
        self._add(lane, Waiting(requests, tops, future, room))
        return future

    def _add(self, lane: Lane, one: Waiting) -> None:
        lane.add(one)
        if lane.task is None:
            # In an empty context: a commit belongs to several calls, and not to the one that came first.
            lane.task = asyncio.create_task(
                self._work(lane), name="enforcement-writer", context=contextvars.Context()
            )

    def _pass_on(self, lane: Lane, group: Sequence[Waiting]) -> None:
        """Gives what waits for a slow commit, and for none of its customers, to another lane, if one is not slow."""
        lane.is_slow = True
        others = [one for one in self._lanes.get(lane.organization_id, ()) if not one.is_slow]
        if others:
            other = min(others, key=lambda one: one.requests)
            for waiting in lane.pass_on(group):
                self._add(other, waiting)

    async def _work(self, lane: Lane) -> None:
        """Commits until nothing waits. What arrives during one commit is the next one's group."""
        log_fields.begin(lane)
        self._monitoring.lanes_busy += 1
        try:
            while lane.waiting:
                await lane.gathering.wait(lane.requests)
                async with self._gate.seat(lane.organization_id) as lane.seat:
                    group = lane.take(self._limits.commit_requests)
                    self._monitoring.wait.observe(time.perf_counter() - group[0].since)
                    requests = [request for one in group for request in one.requests]
                    self._gate.charge(lane.organization_id, COMMIT_COST + len(requests))
                    slow = asyncio.get_running_loop().call_later(self._limits.slow_commit, self._pass_on, lane, group)
                    began = time.perf_counter()
                    try:
                        await self._commit(lane, group, requests)
                    finally:
                        slow.cancel()
                        lane.is_slow = False
                    lane.gathering.ended(len(requests), time.perf_counter() - began)
        finally:
            lane.task = None
            self._monitoring.lanes_busy -= 1

    async def _commit(self, lane: Lane, group: Sequence[Waiting], requests: Sequence[Request]) -> None:
        try:
            answers = await lane.committer.commit(requests)
        except BaseException as error:
            lane.finished(group)
            for one in group:
                one.fail(error)
            if not isinstance(error, Exception):
                raise
            return
        lane.finished(group)
        start = 0
        for one in group:
            end = start + len(one.requests)
            one.succeed(answers[start:end])
            start = end


def _number(lanes: Sequence[Lane], open_lanes: int, customer_id: str, top: str) -> int:
    """The writer of a customer: that of the one above all of its customers, as far as they are known.

    While requests of the customer are on their way, it keeps its writer, whatever is learned of those above it. So do
    the customers below the same one, whatever the number of open lanes.
    """
    for name in (customer_id, top):
        for number, lane in enumerate(lanes):
            if name in lane.customers:
                return number
        if name == top:
            break
    numbers = [number for number, lane in enumerate(lanes) if not lane.is_slow][:open_lanes] or range(open_lanes)
    return numbers[zlib.crc32(top.encode()) % len(numbers)]
