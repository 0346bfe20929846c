"""The pipeline: the queue in which batches of many streams wait for a common commit, in order for each customer."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from engine.activity import UsageActivity
from engine.ingest.batches import Batch, Outcome, add_part
from engine.ingest.commit import Committer
from engine.ingest.lane import Lane, Waiting
from engine.ingest.lanes import Lanes
from engine.ingest.monitoring import IngestMonitoring
from engine.ingest.nodes import CommitNode, Nodes
from engine.ingest.pending import Overloaded, PendingEvents, Room
from engine.limits import DEFAULT_LIMITS, IngestLimits
from engine.rules.registry import RulesRegistry
from runtime import log_fields
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from runtime.turns import of_loop
from store.identity.organizations import Organization
from store.postgres.database import Database

COMMIT_COST = 50  # what a commit costs beside its events, as a number of events
LARGE_COMMIT = 250  # events of a batch above which its organization is heavy (see `runtime.turns`)


class Pipeline:
    """Takes batches of usage events and answers each once it is durable and evaluated.

    writers: transactions side by side for one organization; each has a lane (see `lanes`).
    pending: the events that wait, of which each organization has its share. gate: the transactions side by side of
    all organizations. Beside a light neighbour (see `runtime.turns`), commits are smaller. is_changing: whether a
    change of an organization's rules waits in this process; commits do not grow then (see `commit_size`). nodes: of a
    cluster, each of which has writers of its own for its customers.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        rules: RulesRegistry,
        *,
        writers: int,
        pending: PendingEvents,
        gate: FairSemaphore,
        is_changing: Callable[[int], bool] = lambda _: False,
        limits: IngestLimits = DEFAULT_LIMITS.ingest,
        native: bool = True,
        monitoring: IngestMonitoring | None = None,
        activity: UsageActivity | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        self._monitoring = monitoring or IngestMonitoring()
        self._activity = activity
        self._pending = pending
        self._is_changing = is_changing
        self._limits = limits

        def committer_of(organization: Organization, lane: Lane, node: CommitNode | None) -> Committer:
            return Committer(
                database,
                clock,
                grace,
                rules,
                organization,
                containment_commits=limits.containment_commits,
                between_commits=lane.renew_seat,
                native=native,
                monitoring=self._monitoring,
                node=node,
                coordinator_gate=None if node is None else gate,
            )

        self._lanes = Lanes(committer_of, limits, gate, writers, nodes)

    async def admit(self, organization: Organization, events: int, *, waits: bool = False) -> Room:
        """Room for a batch, before anything is done for it; see `PendingEvents.admit`."""
        try:
            room = await self._pending.admit(organization.organization_id, events, waits=waits)
        except Overloaded:
            self._monitoring.refused += 1
            raise
        self._monitoring.received += events
        return room

    async def submit(self, organization: Organization, batch: Batch, room: Room) -> Outcome:
        """Commits a batch together with others that wait; returns when all of it is durable.

        room: for at least the batch's events, for which it is handed over, at once. The wait may be
        cancelled; the commit goes on. Raises DatabaseUnavailable when some of the batch may not be stored.
        """
        if not batch.events:
            return Outcome()
        parts = await self._lanes.parts_of(organization, batch)  # from here on nothing waits until all are in lanes
        if len(parts) == 1:
            [part] = parts
            return await self._enqueue(part.lane, batch, room.hand_over(len(batch.events)))
        futures = [self._enqueue(part.lane, part.batch, room.hand_over(len(part.batch.events))) for part in parts]
        done = await asyncio.gather(*futures, return_exceptions=True)
        outcome = Outcome()
        for part, result in zip(parts, done, strict=True):
            # Only when every part has ended: a caller that gets a failure may send again at once.
            if isinstance(result, BaseException):
                raise result
            add_part(outcome, result, part.indexes)
        return outcome

    async def drain(self) -> None:
        """Waits until nothing is waiting."""
        while tasks := self._lanes.tasks():
            await asyncio.gather(*tasks, return_exceptions=True)

    def is_ingesting(self, organization_id: int) -> bool:
        """See `Lanes.is_ingesting`."""
        return self._lanes.is_ingesting(organization_id)

    def _enqueue(self, lane: Lane, batch: Batch, room: Room) -> asyncio.Future[Outcome]:
        future = asyncio.get_running_loop().create_future()
        lane.add(Waiting(batch, future, room))
        if lane.task is None:
            # In an empty context: a commit belongs to several calls, and not to the one that came first.
            lane.task = asyncio.create_task(self._work(lane), name="ingest-writer", context=contextvars.Context())
        return future

    async def _work(self, lane: Lane) -> None:
        """Commits until nothing waits. The batches that arrive during one commit are the next one's group."""
        log_fields.begin(lane)
        self._monitoring.lanes_busy += 1
        try:
            while lane.waiting or lane.division is not None:
                lane.changed.clear()
                committed = bool(lane.waiting) and await self._next_commit(lane)
                if not committed and lane.division is not None:
                    await lane.changed.wait()
        finally:
            lane.task = None
            self._monitoring.lanes_busy -= 1
            lane.last_end = asyncio.get_running_loop().time()

    async def _next_commit(self, lane: Lane) -> bool:
        """Commits the next group; returns False if all that waits has to wait for a division."""
        if lane.waiting[0].events > LARGE_COMMIT:
            of_loop().used_up(lane.organization_id)
        async with lane.gate.seat(lane.organization_id) as lane.seat:
            group = self._take(lane)
            if group:
                self._monitoring.wait.observe(time.perf_counter() - group[0].since)
                lane.gate.charge(lane.organization_id, COMMIT_COST + sum(one.taken for one in group))
                await self._commit(lane, group)
        return bool(group)

    def _take(self, lane: Lane) -> list[Waiting]:
        """The batches of the next commit.

        Beside a light neighbour it takes few events, also of one large batch: the database and the event loop work on
        a commit in pieces of its size, and each call of the neighbour waits for several of them.
        """
        limits = self._limits
        if of_loop().has_or_had_light_neighbour(lane.organization_id):
            return lane.take(limits.commit_events_beside_light, divides=True)
        may_grow = not self._is_changing(lane.organization_id)
        return lane.take(lane.size.limit(may_grow=may_grow), divides=False)

    async def _commit(self, lane: Lane, group: list[Waiting]) -> None:
        try:
            outcomes = await self._together(lane, group)
            if outcomes is None:
                is_partial = bool(lane.waiting) and lane.waiting[0] is group[0]
                if lane.division is None and not is_partial:
                    lane.hold(group, asyncio.create_task(self._contain(lane, group), name="ingest-division"))
                    return
                outcomes = await lane.committer.contain([one.part for one in group], lane.renew_seat)
        except BaseException as error:
            if lane.waiting and lane.waiting[0] is group[0]:
                lane.waiting.popleft()  # the rest of a batch that has failed
            _fail(group, error)
        else:
            self._succeed(lane, group, outcomes)

    async def _together(self, lane: Lane, group: list[Waiting]) -> list[Outcome] | None:
        """Commits a group as one, and notes what that says about the size of the next commit."""
        now, more_waits = asyncio.get_running_loop().time, bool(lane.waiting)
        began = now()
        outcomes = await lane.committer.together([one.part for one in group])
        gauges = 0 if outcomes is None else lane.committer.gauges_moved
        lane.size.note(sum(one.taken for one in group), gauges, now() - began, more_waits=more_waits)
        return outcomes

    async def _contain(self, lane: Lane, group: list[Waiting]) -> None:
        """Commits a group whose commit has failed without the events that cannot be recorded, beside the lane."""
        try:
            async with lane.seat_of_division() as between:
                outcomes = await lane.committer.contain([one.part for one in group], between)
        except BaseException as error:
            _fail(group, error)
        else:
            self._succeed(lane, group, outcomes)
        finally:
            lane.release()

    def _succeed(self, lane: Lane, group: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
        now, events, transitions, wait = time.perf_counter(), 0, 0, 0.0
        for one, outcome in zip(group, outcomes, strict=True):
            events += outcome.accepted
            transitions += len(outcome.transitions)
            wait += (now - one.since) * outcome.accepted
            one.succeed(outcome)
        if events and self._activity is not None:
            self._activity.add(lane.organization_id, events, transitions, wait)


def _fail(group: Sequence[Waiting], error: BaseException) -> None:
    """Ends batches with an error. Raises it again if it is a cancellation of the task."""
    for one in group:
        one.room.give_up()
        if isinstance(error, Exception) and not one.done.done():
            one.done.set_exception(error)
    if not isinstance(error, Exception):
        raise error
