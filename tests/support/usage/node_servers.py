"""What of a server commits usage, on a cluster: its pools and its pipeline, in the process of the test."""

from collections.abc import Sequence
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
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import Database
from tests.support.usage.caller import Caller
from tests.support.usage.service import GRACE

_PREPARED = "SELECT count(*) FROM pg_dist_transaction"


@dataclass
class Server:
    """What of a server commits usage: its pool, its nodes, and its pipeline."""

    database: Database
    nodes: Nodes
    pipeline: Pipeline
    organization: Organization
    clock: ManualClock
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


async def open_server(caller: Caller, clock: ManualClock, number: int) -> Server:
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


def prepared(server: Server) -> int:
    """How many transactions of two phases the workers have begun."""
    found = 0
    for pool in server.pools():
        with psycopg.connect(pool.url) as connection:
            row = connection.execute(_PREPARED).fetchone()
            assert row is not None
            found += row[0]
    return found
