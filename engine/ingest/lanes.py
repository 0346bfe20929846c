"""The lanes of organizations: which customer has which lane, and at which node of a cluster each lane commits.

A customer always has the same lane, so that its events are evaluated in the order in which one stream sent them. On
one PostgreSQL a digest of its id decides which one; on a cluster the shard in which it lies.
"""

import asyncio
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.ingest.batches import Batch
from engine.ingest.commit import Committer
from engine.ingest.commit_size import CommitSize
from engine.ingest.lane import Lane
from engine.ingest.nodes import CommitNode, CustomerShards, Nodes
from engine.limits import IngestLimits
from evaluator.events import UsageEvent
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization

# Seconds after a commit in which usage of its organization still counts as coming in: between two batches of a
# stream, nothing is in progress.
STILL_COMING = 1.0


class Part(NamedTuple):
    """A lane's part of a batch. indexes: of its events in the batch; None: it is the whole batch."""

    lane: Lane
    batch: Batch
    indexes: Sequence[int] | None


class Lanes:
    """The lanes of all organizations whose usage comes in, or came in not long ago."""

    def __init__(
        self,
        committer_of: Callable[[Organization, Lane, CommitNode | None], Committer],
        limits: IngestLimits,
        gate: FairSemaphore,
        writers: int,
        nodes: Nodes | None,
    ) -> None:
        """committer_of: makes the committer of a lane. gate, writers, nodes: see `Pipeline`."""
        self._committer_of = committer_of
        self._limits = limits
        self._gate = gate
        self._writers = writers
        self._nodes = nodes
        self._lanes: dict[int, list[Lane]] = {}
        self._located: dict[int, CustomerShards] = {}

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of the lanes that have something to commit."""
        return [lane.task for lanes in self._lanes.values() for lane in lanes if lane.task]

    def is_ingesting(self, organization_id: int) -> bool:
        """Whether usage of the organization is coming in, or did so within STILL_COMING seconds."""
        since = asyncio.get_running_loop().time() - STILL_COMING
        lanes = self._lanes.get(organization_id, ())
        return any(lane.task is not None or lane.last_end > since for lane in lanes)

    async def parts_of(self, organization: Organization, batch: Batch) -> list[Part]:
        """Each lane's part of a batch, which has events. Waits only on a cluster, to find out where customers lie.

        The caller puts the parts into their lanes at once. Raises DatabaseUnavailable.
        """
        numbers = dict.fromkeys([event.customer_id for event in batch.events], 0)
        if self._nodes is None:
            for customer_id in numbers:
                numbers[customer_id] = zlib.crc32(customer_id.encode()) % self._writers
        else:
            located = await self._locate(organization.organization_id, numbers, self._nodes)
            for customer_id in numbers:
                numbers[customer_id] = self._nodes.lane_of(located.shards[customer_id], self._writers)
        lanes = self._lanes_of(organization)
        return [Part(lanes[number], part, indexes) for number, part, indexes in _divided(batch, numbers)]

    async def _locate(self, organization_id: int, customer_ids: Collection[str], nodes: Nodes) -> CustomerShards:
        """Finds out in which shards customers lie.

        After shards were moved, the lanes are made anew when all that waits in the old ones is committed: the events
        of a customer stay in order.
        """
        located = self._located.get(organization_id)
        if located is None:
            located = self._located[organization_id] = CustomerShards()
        if not located.waiting and located.knows(nodes.version, customer_ids):
            return located
        located.waiting += 1
        try:
            async with located.lock:
                while not located.knows(nodes.version, customer_ids):  # shards may move while it waits
                    if located.version != nodes.version:
                        await self._renew(organization_id, located, nodes)
                    await nodes.locate(located, customer_ids)
        finally:
            located.waiting -= 1
        return located

    async def _renew(self, organization_id: int, located: CustomerShards, nodes: Nodes) -> None:
        """Removes the lanes of an organization, when they have committed all, for those of the present map."""
        version = nodes.version
        await nodes.prepare(organization_id)
        while tasks := [lane.task for lane in self._lanes.get(organization_id, ()) if lane.task]:
            await asyncio.gather(*tasks, return_exceptions=True)
        self._lanes.pop(organization_id, None)
        located.shards.clear()
        located.version = version

    def _lanes_of(self, organization: Organization) -> list[Lane]:
        lanes = self._lanes.get(organization.organization_id)
        if lanes is None:
            if len(self._lanes) >= self._limits.idle_organizations:
                self._lanes = {key: kept for key, kept in self._lanes.items() if any(lane.task for lane in kept)}
                self._located = {
                    key: one
                    for key, one in self._located.items()
                    if key in self._lanes or one.waiting or key == organization.organization_id
                }
            nodes = 1 if self._nodes is None else self._nodes.count
            lanes = [self._lane(organization, number) for number in range(nodes) for _ in range(self._writers)]
            self._lanes[organization.organization_id] = lanes
        return lanes

    def _lane(self, organization: Organization, number: int) -> Lane:
        node = None
        if self._nodes is not None:
            node = self._nodes.commit_node(number, self._located[organization.organization_id])
        # A commit that failed at a node is divided at the coordinator, where each of its parts takes a seat. A seat
        # at the node meanwhile could be the only one that the organization may have there.
        gate, division_gate = (self._gate, self._gate) if node is None else (node.worker.gate, None)
        lane = Lane(organization.organization_id, -STILL_COMING, CommitSize(self._limits), gate, division_gate)
        lane.committer = self._committer_of(organization, lane, node)
        return lane


def _divided(batch: Batch, numbers: Mapping[str, int]) -> Iterable[tuple[int, Batch, Sequence[int] | None]]:
    """The parts of a batch by the numbers of lanes, in their order, as in `Part`. numbers: by customer."""
    distinct = sorted(set(numbers.values()))
    if len(distinct) == 1:
        return [(distinct[0], batch, None)]
    parts: dict[int, tuple[list[UsageEvent], list[int]]] = {number: ([], []) for number in distinct}
    for index, event in enumerate(batch.events):
        events, indexes = parts[numbers[event.customer_id]]
        events.append(event)
        indexes.append(index)
    return [(number, batch.part(events), indexes) for number, (events, indexes) in parts.items()]
