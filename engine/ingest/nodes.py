"""The nodes of a cluster at which ingest commits, and the customers of each.

On one PostgreSQL there is none. On a cluster, a commit of usage runs at the node where its customers lie, over a
connection to that node. What a node cannot do, the coordinator does: see `commit_places`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from engine.ingest.announcer import Announcer
from runtime.actions import LogAction
from runtime.fair_semaphore import FairSemaphore
from runtime.tasks import BackgroundTask, FailureLog
from store.citus import customer_nodes
from store.citus.customer_nodes import NodeMap
from store.citus.nodes import Node, seats_at_node
from store.citus.shard_tables import ShardsOf
from store.identity import organizations
from store.postgres.addresses import at_node
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.retries import repeated

REFRESH = 10.0  # seconds between two readings of the map
PATIENCE = 2.0  # seconds for which usage waits until all nodes know its organization
MAX_CUSTOMERS = 100_000  # of an organization, of which the process knows the shard
MOST_SHOWN = 100_000  # organizations
NOT_SHOWN = -1

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class CustomerShards:
    """The shards of the customers of one organization, as far as they are known.

    version: of the map by which its lanes were made. waiting: batches that wait for `lock`, or hold it; all later
    ones have to queue behind them, so that they stay in order.
    """

    version: int = 0
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shards: dict[str, int] = field(default_factory=dict)

    def knows(self, version: int, customer_ids: Collection[str]) -> bool:
        """Whether the shards of these customers are known, by this version of the map."""
        shards = self.shards
        return version == self.version and all(one in shards for one in customer_ids)


class Worker:
    """A worker at which commits run: the connections to it, and as many seats, which organizations share."""

    def __init__(self, url: str, seats: int, announcer: Announcer) -> None:
        self.database = Database(url, seats, "node", announce=announcer.announce)
        self.gate = FairSemaphore(seats)


@dataclass(frozen=True, slots=True)
class CommitNode:
    """A worker at which commits of one organization run. located: where the organization's customers are."""

    worker: Worker
    located: CustomerShards
    _nodes: "Nodes"
    _number: int

    def shards_of(self, customer_ids: Iterable[str]) -> ShardsOf | None:
        """The tables of the shards of customers; None unless it is known that all of them lie at this worker."""
        return self._nodes.tables_of(self._number, self.located, customer_ids)


class Nodes:
    """The workers of a cluster, each with a pool of connections, and where shards lie at present."""

    def __init__(self, database: Database, node_map: NodeMap, seats: int, overrides: Mapping[str, str]) -> None:
        """seats: connections to each worker. overrides: addresses of workers for this process, by `Node`."""
        self.version = 1
        self._database = database
        self._map = node_map
        self._seats = seats
        self._overrides = overrides
        self._announcer = Announcer(database)
        self._workers: dict[Node, Worker] = {}
        self._numbers: dict[Node | None, int] = {None: 0}
        self._number_of_shard: list[int] = []
        self._ordinals: list[int] = []  # of each shard among those at its node
        self._use(node_map)
        self._unprepared: dict[int, asyncio.Event] = {}
        self._shown: dict[int, int] = {}  # by organization: see `shown_epoch`
        self._epochs = BackgroundTask(
            self._prepare_next,
            FailureLog(
                logger,
                "a node cannot be prepared for an organization",
                LogAction.NODES_FAILED,
                (DatabaseUnavailable,),
                "a node cannot be prepared for an organization: %s",
                LogAction.NODES_FAILED,
            ),
            name="epochs",
        )
        self._task = BackgroundTask(
            self.refresh,
            FailureLog(
                logger,
                "the nodes of the cluster could not be read",
                LogAction.NODES_FAILED,
                (DatabaseUnavailable,),
                "the nodes of the cluster cannot be read: %s",
                LogAction.NODES_FAILED,
            ),
            name="nodes",
            interval=REFRESH,
            first_pause=REFRESH,
        )

    def start(self) -> None:
        """Follows the shards that are moved, and announces notifications of commits at workers."""
        self._task.start()
        self._announcer.start()

    async def stop(self) -> None:
        """Closes all connections to workers."""
        await self._task.stop()
        await self._epochs.stop()
        await self._announcer.stop()
        for worker in self._workers.values():
            await worker.database.close()

    @property
    def count(self) -> int:
        """How many nodes commits run at: the coordinator, which is number 0, and the workers."""
        return len(self._numbers)

    @property
    def node_map(self) -> NodeMap:
        """Where shards lie, as far as it is known."""
        return self._map

    def commit_node(self, number: int, located: CustomerShards) -> CommitNode | None:
        """The worker of this number, for commits of an organization; None for the coordinator."""
        worker = next((self._workers[node] for node, one in self._numbers.items() if one == number and node), None)
        return None if worker is None else CommitNode(worker, located, self, number)

    def tables_of(self, number: int, located: CustomerShards, customer_ids: Iterable[str]) -> ShardsOf | None:
        """See `CommitNode`."""
        if located.version != self.version:
            return None  # the numbers of shards are those of an earlier map: a split has changed them
        found = {}
        for customer_id in customer_ids:
            shard = located.shards.get(customer_id)
            tables = None if shard is None else self._map.tables[shard]
            if shard is None or tables is None or self._number_of_shard[shard] != number:
                return None
            found[customer_id] = tables
        return found

    def lane_of(self, shard: int, writers: int) -> int:
        """The number of the lane of a shard, if each node has so many writers.

        All customers of a shard have one writer: a commit that touches fewer shards costs its node less.
        """
        return self._number_of_shard[shard] * writers + self._ordinals[shard] % writers

    async def locate(self, located: CustomerShards, customer_ids: Collection[str]) -> None:
        """Finds the shards of customers. Raises DatabaseUnavailable."""
        missing = [one for one in customer_ids if one not in located.shards]
        if not missing:
            return
        found = await repeated(lambda: self._hashes(missing))
        if len(located.shards) + len(missing) > MAX_CUSTOMERS:
            located.shards.clear()
            await self.locate(located, customer_ids)
            return
        located.shards.update((one, self._map.shard_of(value)) for one, value in zip(missing, found, strict=True))

    async def _hashes(self, customer_ids: Sequence[str]) -> list[int]:
        async with self._database.reading() as connection:
            return await customer_nodes.hashes(connection, customer_ids)

    async def prepare(self, organization_id: int) -> None:
        """Lets all workers know an organization, so that its usage can be committed there.

        If one of them is away, or slow, that is repeated until it is done. Meanwhile the coordinator commits the
        usage of customers whose workers do not know their organization.
        """
        known = self._unprepared.setdefault(organization_id, asyncio.Event())
        self._epochs.start()
        self._epochs.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await known.wait()

    async def _prepare_next(self) -> float | None:
        """Lets all workers know the organizations that wait. Raises DatabaseUnavailable."""
        for organization_id, known in list(self._unprepared.items()):
            try:
                await repeated(partial(self._prepare, organization_id))
            finally:
                known.set()
            del self._unprepared[organization_id]
        return None

    async def _prepare(self, organization_id: int) -> None:
        for _ in range(2):  # where the nodes do not know it, the first time makes its rows
            async with self._database.transaction() as connection:
                shown = await organizations.prepare_nodes(connection, organization_id)
            if shown is not None:
                if len(self._shown) >= MOST_SHOWN:
                    self._shown.clear()
                self._shown[organization_id] = shown
                return

    def shown_epoch(self, organization_id: int) -> int:
        """An epoch of an organization that all nodes show, as far as it is known; below all others if it is not."""
        return self._shown.get(organization_id, NOT_SHOWN)

    async def refresh(self) -> None:
        """Reads where shards lie now. Raises DatabaseUnavailable."""
        async with self._database.reading() as connection:
            found = await customer_nodes.read(connection)
        if found is None or found == self._map:
            return
        logger.info("shards were moved", extra={"action": LogAction.NODES_CHANGED})
        self._use(found)
        self.version += 1
        # Each connection has noted a shard of its node (`marker_of`), which can be elsewhere now. This also ends
        # those to a node that was removed.
        for worker in self._workers.values():
            await worker.database.close()

    def _use(self, node_map: NodeMap) -> None:
        for node in node_map.nodes:
            if node is not None and node not in self._workers:
                url = at_node(self._database.url, self._overrides.get(str(node), str(node)))
                self._workers[node] = Worker(url, self._seats, self._announcer)
                self._numbers[node] = len(self._numbers)
        self._map = node_map
        self._number_of_shard = [self._numbers[node] for node in node_map.nodes]
        self._ordinals = [node_map.nodes[:index].count(node) for index, node in enumerate(node_map.nodes)]


async def open_nodes(database: Database, overrides: Mapping[str, str], *, seats: int) -> Nodes | None:
    """The workers of the cluster of a database; None where it is one PostgreSQL, or a cluster without workers.

    seats: transactions of usage that the process runs at the same time at one PostgreSQL; workers share them, and
    each has some at least. Raises DatabaseUnavailable.
    """
    async with database.reading() as connection:
        found = await customer_nodes.read(connection)
    workers = {node for node in found.nodes if node is not None} if found is not None else set()
    if found is None or not workers:
        return None
    return Nodes(database, found, seats_at_node(seats, len(workers)), overrides)
