"""Servers that commit usage at the nodes of a cluster, in the process of the test: pools, nodes and pipelines."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

import psycopg

from engine.ingest.batches import Batch, Outcome
from engine.ingest.monitoring import IngestMonitoring
from engine.ingest.nodes import CustomerShards, Nodes, open_nodes
from engine.ingest.pending import PendingEvents
from engine.ingest.pipeline import Pipeline
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import Database
from tests.support.usage.caller import Caller, usage_alert
from tests.support.usage.service import GRACE

CUSTOMERS = [f"c{number}" for number in range(12)]  # of 4 shards; each node has some
_SERVERS = 2
_PREPARED = "SELECT count(*) FROM pg_dist_transaction"
_GAUGES = "SELECT customer_id, value FROM gauge WHERE organization_id = %(organization_id)s ORDER BY 1"
_STORED = """
SELECT customer_id, sum(quantity) FROM event WHERE organization_id = %(organization_id)s GROUP BY 1 ORDER BY 1
"""


@dataclass
class Server:
    """What of a server commits usage: its pool, its nodes, and its pipeline."""

    database: Database
    nodes: Nodes
    pipeline: Pipeline
    organization: Organization
    clock: Clock
    number: int
    monitoring: IngestMonitoring
    sent: int = 0

    async def send(self, *events: UsageEvent) -> Outcome:
        """Commits events as one batch."""
        room = await self.pipeline.admit(self.organization, len(events), waits=True)
        try:
            return await self.pipeline.submit(self.organization, Batch(events, include_gauges=True), room)
        finally:
            room.give_up()

    def events(self, customers: Sequence[str], quantity: int = 1) -> list[UsageEvent]:
        """An event of each customer."""
        made = []
        for one in customers:
            self.sent += 1
            event_id = f"{self.number} {self.sent}"
            made.append(UsageEvent(event_id, one, self.clock.now(), "calls", Decimal(quantity), None, None, None, {}))
        return made

    def pools(self) -> list[Database]:
        """Of the workers."""
        found = (self.nodes.commit_node(number, CustomerShards()) for number in range(self.nodes.count))
        return [one.worker.database for one in found if one is not None]

    async def close(self) -> None:
        """Ends it when nothing waits."""
        await self.pipeline.drain()
        await self.nodes.stop()
        await self.database.close()


async def open_server(caller: Caller, clock: Clock, number: int) -> Server:
    """A server beside that of the caller, for its organization."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=4)
    nodes = await open_nodes(database, {}, seats=4)
    assert nodes is not None
    monitoring = IngestMonitoring()
    pipeline = Pipeline(
        database,
        clock,
        GRACE,
        RulesRegistry(),
        writers=2,
        pending=PendingEvents(100_000, 100_000),
        gate=FairSemaphore(4),
        monitoring=monitoring,
        nodes=nodes,
    )
    organization = Organization(organization_id, caller.organization)
    return Server(database, nodes, pipeline, organization, clock, number, monitoring)


@asynccontextmanager
async def servers_of(caller: Caller, clock: Clock) -> AsyncIterator[list[Server]]:
    """Two servers beside that of the caller, which know the customers and the metric; an alert watches all usage."""
    await caller.create(usage_alert("1000000"))
    made = [await open_server(caller, clock, number) for number in range(_SERVERS)]
    for server in made:
        for _ in range(2):  # a metric that usage registered is read once more
            await server.send(*server.events(CUSTOMERS, quantity=0))
    yield made
    for server in made:
        await server.close()


async def assert_totals(caller: Caller) -> None:
    """Each customer has one gauge, which has exactly what is stored."""
    gauges = await caller.rows(_GAUGES)
    assert gauges == await caller.rows(_STORED) != []


async def assert_in_their_shards(caller: Caller) -> None:
    """As `assert_totals`, and each customer's rows are those that a statement about it alone finds."""
    await assert_totals(caller)
    for customer_id, total in await caller.rows(_STORED):
        alone = "WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s"
        for of_one in (f"SELECT sum(quantity) FROM event {alone}", f"SELECT sum(value) FROM gauge {alone}"):
            assert await caller.rows(of_one, customer_id=customer_id) == [(total,)]


def prepared(server: Server) -> int:
    """How many transactions of two phases the workers have begun."""
    found = 0
    for pool in server.pools():
        with psycopg.connect(pool.url) as connection:
            row = connection.execute(_PREPARED).fetchone()
            assert row is not None
            found += row[0]
    return found
