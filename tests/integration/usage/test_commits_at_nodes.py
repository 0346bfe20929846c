"""On a cluster, usage is committed at the node of its customers, and is as exact as on one PostgreSQL."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import text

from engine.ingest.batches import Batch, Outcome
from engine.ingest.monitoring import AT_NODE, IngestMonitoring
from engine.ingest.nodes import CustomerShards, Nodes, open_nodes
from engine.ingest.pending import PendingEvents
from engine.ingest.pipeline import Pipeline
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from generated.tidemark.v1 import alert_pb2
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.citus import shard_tables
from store.citus.shard_tables import ShardTables
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres.database import Database, driver
from store.postgres.distributed import NeedsCoordinator
from store.usage import events as stored_events
from tests.support.balances.holder import Holder
from tests.support.postgres.lock_waits import END_WAITING_SESSIONS, until_it_waits_for_a_lock
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import move_away
from tests.support.usage.caller import Caller, ingest_held, usage_alert
from tests.support.usage.service import GRACE

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

_CUSTOMERS = [f"c{number}" for number in range(12)]  # of 4 shards; each node has some
_LEVEL = 50
_SERVERS, _ROUNDS, _SEED = 2, 12, 20261130
_PREPARED = "SELECT count(*) FROM pg_dist_transaction"
_GAUGES = "SELECT customer_id, value FROM gauge WHERE organization_id = %(organization_id)s ORDER BY 1"
_STORED = """
SELECT customer_id, sum(quantity) FROM event WHERE organization_id = %(organization_id)s GROUP BY 1 ORDER BY 1
"""
_LIES_HERE = """
SELECT groupid = (SELECT groupid FROM pg_dist_local_group) FROM pg_dist_placement
WHERE shardid = get_shard_id_for_distribution_column('customer', CAST(:customer_id AS text))
"""


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


async def _server(caller: Caller, clock: ManualClock, number: int) -> Server:
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


@pytest.fixture
async def servers(caller: Caller, clock: ManualClock) -> AsyncIterator[list[Server]]:
    """Two servers beside that of the caller, which know the customers and the metric; an alert watches all usage."""
    await caller.create(usage_alert("1000000"))
    made = [await _server(caller, clock, number) for number in range(_SERVERS)]
    for server in made:
        for _ in range(2):  # a metric that usage registered is read once more
            await server.send(*server.events(_CUSTOMERS, quantity=0))
    yield made
    for server in made:
        await server.close()


def _prepared(server: Server) -> int:
    """How many transactions of two phases the workers have begun."""
    found = 0
    for pool in server.pools():
        with psycopg.connect(pool.url) as connection:
            row = connection.execute(_PREPARED).fetchone()
            assert row is not None
            found += row[0]
    return found


async def test_usage_of_known_customers_touches_one_node(servers: list[Server]) -> None:
    server = servers[0]
    await server.send(*server.events(_CUSTOMERS))
    through_coordinator, prepared = server.database.waits, _prepared(server)
    before, placed = [pool.waits for pool in server.pools()], server.monitoring.placed.copy()
    for _ in range(5):
        outcome = await server.send(*server.events(_CUSTOMERS * 3))
        assert outcome.accepted == 3 * len(_CUSTOMERS)
    for one in _CUSTOMERS:  # alone, by the shorter way
        await server.send(*server.events([one]))
    assert server.database.waits == through_coordinator
    assert _prepared(server) == prepared
    assert set(server.monitoring.placed - placed) == {(AT_NODE,)}
    assert all(pool.waits > earlier for pool, earlier in zip(server.pools(), before, strict=True))


async def test_change_of_rules_waits_for_commits_at_each_node(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    organization_id = server.organization.organization_id
    for pool in server.pools():
        async with pool.transaction() as at_node:
            before = await organizations.lock_shared(at_node, organization_id)
            change = asyncio.create_task(caller.create_only(usage_alert("1000")))
            await until_it_waits_for_a_lock(server.database, change)
        await change
        async with pool.transaction() as at_node:
            assert await organizations.lock_shared(at_node, organization_id) == before + 1


async def test_commit_at_each_node_waits_for_a_change_of_rules(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    organization_id = server.organization.organization_id
    for customer in ("c0", "c1", "c2", "c3"):
        async with server.database.transaction() as connection:
            await organizations.begin_change(connection, organization_id)
            commit = asyncio.create_task(server.send(*server.events([customer])))
            await until_it_waits_for_a_lock(servers[1].database, commit)
        assert (await commit).accepted == 1


async def test_commit_at_a_node_is_repeated_when_its_connection_is_cut(servers: list[Server], caller: Caller) -> None:
    server, observer = servers[0], servers[1].database
    async with ingest_held(caller):
        commit = asyncio.create_task(server.send(*server.events(_CUSTOMERS)))
        await until_it_waits_for_a_lock(observer, commit)
        with psycopg.connect(caller.database_url, autocommit=True) as connection:
            assert connection.execute(END_WAITING_SESSIONS.encode()).fetchall()
        await until_it_waits_for_a_lock(observer, commit)
    assert (await commit).accepted == len(_CUSTOMERS)
    await _assert_totals(caller)


async def test_crossing_at_a_node_is_notified_once(servers: list[Server], caller: Caller) -> None:
    await caller.create(usage_alert(str(_LEVEL)))
    for server in servers:
        await server.send(*server.events(_CUSTOMERS, quantity=_LEVEL // 2))
    outcome = await servers[0].send(*servers[0].events(_CUSTOMERS, quantity=1))
    assert len(outcome.transitions) == 0
    assert len({one.customer_id for one in await caller.notifications()}) == len(_CUSTOMERS)


async def test_servers_that_share_customers_are_exact_while_rules_change(
    servers: list[Server], caller: Caller
) -> None:
    chance = random.Random(_SEED)
    alerts = list[alert_pb2.Alert]()

    async def send(server: Server) -> None:
        for _ in range(_ROUNDS):
            await asyncio.gather(
                *(server.send(*server.events(chance.sample(_CUSTOMERS, chance.randint(1, 12)))) for _ in range(3))
            )

    async def change() -> None:
        while not all(one.done() for one in sending):
            alerts.append(await caller.create_only(usage_alert(str(10 * len(alerts) + 10))))

    sending = [asyncio.create_task(send(server)) for server in servers]
    await asyncio.gather(*sending, change())
    await caller.create(usage_alert("1"))  # it returns when all that was sent before is evaluated
    rows = await caller.rows(
        "SELECT customer_id, sum(quantity) FROM event WHERE organization_id = %(organization_id)s GROUP BY 1"
    )
    levels = [1, *(10 * number for number in range(1, len(alerts) + 1))]
    expected = sum(value >= level for _, value in rows for level in levels)
    assert expected > len(_CUSTOMERS)
    await _assert_totals(caller)
    for alert in alerts:
        await caller.backfilled(alert.alert_id)
    notified = await caller.rows(
        "SELECT count(*), max(sequence) FROM notification WHERE organization_id = %(organization_id)s"
        " GROUP BY customer_id, alert_id, gauge_id"
    )
    assert notified == [(1, 1)] * expected


async def _assert_totals(caller: Caller) -> None:
    """Each customer has one gauge, which has exactly what is stored."""
    gauges = await caller.rows(_GAUGES)
    assert gauges == await caller.rows(_STORED) != []


async def test_shard_that_moves_meanwhile_costs_nothing(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    await server.send(*server.events(["c0"] * 3))
    sending = asyncio.create_task(server.send(*server.events(_CUSTOMERS * 2)))
    await asyncio.to_thread(move_away, caller.database_url, "c0")
    await sending
    await server.send(*server.events(_CUSTOMERS))  # by the map of before
    version = server.nodes.version
    await server.nodes.refresh()
    assert server.nodes.version == version + 1
    await server.send(*server.events(_CUSTOMERS))
    await _assert_totals(caller)


async def test_answers_of_a_batch_of_which_some_customers_are_notified_are_in_its_order(
    servers: list[Server], caller: Caller
) -> None:
    server = servers[0]
    await caller.create(usage_alert(str(_LEVEL)))
    await server.send(*server.events(_CUSTOMERS))
    events = server.events([*_CUSTOMERS, "c0", *_CUSTOMERS])
    crossing = events[12]._replace(quantity=Decimal(_LEVEL))
    outcome = await server.send(*events[:12], crossing, *events[12:], *events[:3])
    assert (outcome.accepted, sorted(outcome.duplicates), outcome.conflicting) == (25, [26, 27, 28], [13])
    assert [(one.gauge.customer_id, one.transition.level) for one in outcome.transitions] == [("c0", Decimal(_LEVEL))]
    values = {gauge.customer_id: value for gauge, value in outcome.gauges}
    assert values == {one: Decimal(53 if one == "c0" else 3) for one in _CUSTOMERS}
    await _assert_totals(caller)


def _shard_of(server: Server, customer_id: str) -> ShardTables:
    """The tables of the shard of a customer, as the server knows them."""
    with psycopg.connect(server.database.url) as connection:
        row = connection.execute("SELECT worker_hash(%s::text)", (customer_id,)).fetchone()
    assert row is not None
    node_map = server.nodes.node_map
    found = node_map.tables[node_map.shard_of(row[0])]
    assert found is not None
    return found


async def test_move_of_a_shard_waits_for_a_commit_that_holds_it(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    [pool] = [one for one in server.pools() if await _lies_at(one, "c0")]
    shard = _shard_of(server, "c0")
    organization_id = server.organization.organization_id
    event = server.events(["c0"])[0]
    async with pool.transaction() as at_node:
        raw = await driver(at_node)
        async with raw.pipeline():
            await organizations.send_lock_shared(raw, organization_id)
            placed = await shard_tables.send_hold(raw, [shard])
        await shard_tables.check(placed, [shard])
        moving = asyncio.create_task(asyncio.to_thread(move_away, caller.database_url, "c0"))
        await until_it_waits_for_a_lock(server.database, moving)
        rows = stored_events.copy_text(organization_id, server.clock.now(), [event])
        await stored_events.copy(raw, rows, table=shard.event)
    await moving
    async with pool.transaction() as at_node:
        raw = await driver(at_node)
        async with raw.pipeline():
            placed = await shard_tables.send_hold(raw, [shard])
        with pytest.raises(NeedsCoordinator):
            await shard_tables.check(placed, [shard])
    stored = await caller.rows("SELECT event_id, customer_id FROM event WHERE organization_id = %(organization_id)s")
    assert stored.count((event.event_id, "c0")) == 1


async def _lies_at(pool: Database, customer_id: str) -> bool:
    """Whether a customer lies at the worker of a pool."""
    async with pool.transaction() as connection:
        found = await connection.scalar(text(_LIES_HERE), {"customer_id": customer_id})
    return bool(found)


async def test_usage_that_draws_on_balances_is_exact_at_nodes(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    holder = Holder(caller, "c0")
    await holder.put("units", "100", metric="calls")
    for customers in (["c0"], ["c0"], _CUSTOMERS * 3):  # alone, alone with a known wallet, and with others
        assert (await server.send(*server.events(customers))).accepted == len(customers)
    assert await holder.remaining() == {"units": Decimal(95)}
    await _assert_totals(caller)
