"""On a cluster, usage is committed at the node of its customers, and is as exact as on one PostgreSQL."""

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import text

from engine.ingest.monitoring import AT_NODE
from generated.tidemark.v1 import alert_pb2
from runtime.clock import ManualClock
from store.citus import shard_tables
from store.citus.shard_tables import ShardTables
from store.identity import organizations
from store.postgres.database import Database, driver
from store.postgres.distributed import NeedsCoordinator
from store.usage import events as stored_events
from tests.support.balances.holder import Holder
from tests.support.postgres.lock_waits import END_WAITING_SESSIONS, until_it_waits_for_a_lock
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import move_away
from tests.support.usage.caller import Caller, ingest_held, usage_alert
from tests.support.usage.node_servers import (
    CUSTOMERS,
    Server,
    assert_totals,
    prepared,
    servers_of,
)

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

_LEVEL = 50
_ROUNDS, _SEED = 12, 20261130
_LIES_HERE = """
SELECT groupid = (SELECT groupid FROM pg_dist_local_group) FROM pg_dist_placement
WHERE shardid = get_shard_id_for_distribution_column('customer', CAST(:customer_id AS text))
"""


@pytest.fixture
async def servers(caller: Caller, clock: ManualClock) -> AsyncIterator[list[Server]]:
    """Two servers beside that of the caller, which know the customers and the metric; an alert watches all usage."""
    async with servers_of(caller, clock) as made:
        yield made


async def test_usage_of_known_customers_touches_one_node(servers: list[Server]) -> None:
    server = servers[0]
    await server.send(*server.events(CUSTOMERS))
    through_coordinator, begun = server.database.waits, prepared(server)
    before, placed = [pool.waits for pool in server.pools()], server.monitoring.placed.copy()
    for _ in range(5):
        outcome = await server.send(*server.events(CUSTOMERS * 3))
        assert outcome.accepted == 3 * len(CUSTOMERS)
    for one in CUSTOMERS:  # alone, by the shorter way
        await server.send(*server.events([one]))
    assert server.database.waits == through_coordinator
    assert prepared(server) == begun
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
        commit = asyncio.create_task(server.send(*server.events(CUSTOMERS)))
        await until_it_waits_for_a_lock(observer, commit)
        with psycopg.connect(caller.database_url, autocommit=True) as connection:
            assert connection.execute(END_WAITING_SESSIONS.encode()).fetchall()
        await until_it_waits_for_a_lock(observer, commit)
    assert (await commit).accepted == len(CUSTOMERS)
    await assert_totals(caller)


async def test_crossing_at_a_node_is_notified_once(servers: list[Server], caller: Caller) -> None:
    await caller.create(usage_alert(str(_LEVEL)))
    for server in servers:
        await server.send(*server.events(CUSTOMERS, quantity=_LEVEL // 2))
    outcome = await servers[0].send(*servers[0].events(CUSTOMERS, quantity=1))
    assert len(outcome.transitions) == 0
    assert len({one.customer_id for one in await caller.notifications()}) == len(CUSTOMERS)


async def test_servers_that_share_customers_are_exact_while_rules_change(
    servers: list[Server], caller: Caller
) -> None:
    chance = random.Random(_SEED)
    alerts = list[alert_pb2.Alert]()

    async def send(server: Server) -> None:
        for _ in range(_ROUNDS):
            await asyncio.gather(
                *(server.send(*server.events(chance.sample(CUSTOMERS, chance.randint(1, 12)))) for _ in range(3))
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
    assert expected > len(CUSTOMERS)
    await assert_totals(caller)
    for alert in alerts:
        await caller.backfilled(alert.alert_id)
    notified = await caller.rows(
        "SELECT count(*), max(sequence) FROM notification WHERE organization_id = %(organization_id)s"
        " GROUP BY customer_id, alert_id, gauge_id"
    )
    assert notified == [(1, 1)] * expected


async def test_shard_that_moves_meanwhile_costs_nothing(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    await server.send(*server.events(["c0"] * 3))
    sending = asyncio.create_task(server.send(*server.events(CUSTOMERS * 2)))
    await asyncio.to_thread(move_away, caller.database_url, "c0")
    await sending
    await server.send(*server.events(CUSTOMERS))  # by the map of before
    version = server.nodes.version
    await server.nodes.refresh()
    assert server.nodes.version == version + 1
    await server.send(*server.events(CUSTOMERS))
    await assert_totals(caller)


async def test_answers_of_a_batch_of_which_some_customers_are_notified_are_in_its_order(
    servers: list[Server], caller: Caller
) -> None:
    server = servers[0]
    await caller.create(usage_alert(str(_LEVEL)))
    await server.send(*server.events(CUSTOMERS))
    events = server.events([*CUSTOMERS, "c0", *CUSTOMERS])
    crossing = events[12]._replace(quantity=Decimal(_LEVEL))
    outcome = await server.send(*events[:12], crossing, *events[12:], *events[:3])
    assert (outcome.accepted, sorted(outcome.duplicates), outcome.conflicting) == (25, [26, 27, 28], [13])
    assert [(one.gauge.customer_id, one.transition.level) for one in outcome.transitions] == [("c0", Decimal(_LEVEL))]
    values = {gauge.customer_id: value for gauge, value in outcome.gauges}
    assert values == {one: Decimal(53 if one == "c0" else 3) for one in CUSTOMERS}
    await assert_totals(caller)


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
    for customers in (["c0"], ["c0"], CUSTOMERS * 3):  # alone, alone with a known wallet, and with others
        assert (await server.send(*server.events(customers))).accepted == len(customers)
    assert await holder.remaining() == {"units": Decimal(95)}
    await assert_totals(caller)
