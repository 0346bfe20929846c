"""Shards of a cluster that are split, or isolated, while usage is written: no row gets into the wrong part."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import psycopg
import pytest

from runtime.clock import ManualClock
from store.citus.shard_tables import ShardTables
from store.identity import organizations
from store.identity.node_epochs import LOCK_CLASS
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import move_away
from tests.support.server.sharing import own_database
from tests.support.usage.caller import Caller, usage_alert
from tests.support.usage.node_servers import CUSTOMERS, Server, assert_in_their_shards, servers_of

pytestmark = [
    own_database,
    pytest.mark.skipif(
        not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
    ),
]


@pytest.fixture
async def servers(caller: Caller, clock: ManualClock) -> AsyncIterator[list[Server]]:
    """Two servers."""
    async with servers_of(caller, clock) as made:
        yield made


def _split(url: str, server: Server) -> tuple[ShardTables, list[str]]:
    """Splits a shard between two of its customers, as an operator does; returns it as it was, and its customers."""
    node_map, by_shard = server.nodes.node_map, dict[int, list[tuple[int, str]]]()
    with psycopg.connect(url, autocommit=True) as connection:
        hashed = connection.execute("SELECT worker_hash(id), id FROM unnest(%s::text[]) AS i (id)", (CUSTOMERS,))
        for value, one in hashed.fetchall():
            by_shard.setdefault(node_map.shard_of(value), []).append((value, one))
        number, inside = max(by_shard.items(), key=lambda item: len(item[1]))
        shard = node_map.tables[number]
        assert shard is not None
        assert len(inside) > 1
        connection.execute(
            "SELECT citus_split_shard_by_split_points(%s, ARRAY[%s], ARRAY[n.nodeid, n.nodeid], 'block_writes')"
            " FROM pg_dist_placement p JOIN pg_dist_node n USING (groupid)"
            " WHERE p.shardid = %s AND n.noderole = 'primary'",
            (shard.shard_id, str(min(inside)[0]), shard.shard_id),
        )
        connection.execute("CALL citus_cleanup_orphaned_resources()")
    return shard, [one for _, one in inside]


async def test_shard_that_is_split_while_commits_wait_gets_none_of_the_rows_of_the_other_part(
    servers: list[Server], caller: Caller
) -> None:
    """One server learns of it while commits wait at the node, the other one does not."""
    server, unaware = servers
    key = f"{LOCK_CLASS}, {server.organization.organization_id}"
    with ExitStack() as exits:
        holders = [exits.enter_context(psycopg.connect(pool.url, autocommit=True)) for pool in server.pools()]
        for holder in holders:
            holder.execute(f"SELECT pg_advisory_lock({key})".encode())
        sending = [asyncio.create_task(one.send(*one.events(CUSTOMERS))) for one in servers]
        for task in sending:
            await until_it_waits_for_a_lock(server.database, task)
        # They wait behind the first, and find the shards of their customers when that has ended.
        sending += [asyncio.create_task(one.send(*one.events(CUSTOMERS))) for one in servers]
        shard, inside = await asyncio.to_thread(_split, caller.database_url, server)
        await server.nodes.refresh()
        assert shard not in server.nodes.node_map.tables
        for holder in holders:
            holder.execute(f"SELECT pg_advisory_unlock({key})".encode())
        for outcome in await asyncio.gather(*sending):
            assert outcome.accepted == len(CUSTOMERS)
    for customer_id in inside:  # alone: by the shorter way, to tables that do not exist any more
        await unaware.send(*unaware.events([customer_id]))
    await caller.create(usage_alert("1"))
    for one in servers:
        await one.send(*one.events(CUSTOMERS))
    await assert_in_their_shards(caller)


async def test_change_of_rules_holds_the_lock_also_at_a_node_that_has_only_new_shards(
    servers: list[Server], caller: Caller
) -> None:
    """Of an organization of which the part of a split shard has no epoch yet."""
    server = servers[0]
    organization_id = server.organization.organization_id
    await asyncio.to_thread(_split, caller.database_url, server)
    rows = "SELECT count(*) FROM organization_epoch WHERE organization_id = %(organization_id)s"
    [[before]] = await caller.rows(rows)
    async with server.database.transaction() as connection:
        await organizations.begin_change(connection, organization_id)
    assert await caller.rows(rows) == [(before + 1,)]


async def test_customer_that_is_isolated_in_a_shard_of_its_own_is_exact(
    servers: list[Server], caller: Caller
) -> None:
    """Also when that shard is the only one of its node, where no number has the hash of a shard."""
    server = servers[0]
    with psycopg.connect(caller.database_url, autocommit=True) as connection:
        isolate = (
            "SELECT isolate_tenant_to_new_shard('customer', 'c0', 'CASCADE', shard_transfer_mode => 'block_writes')"
        )
        sending = asyncio.create_task(server.send(*server.events(CUSTOMERS * 2)))
        await asyncio.to_thread(connection.execute, isolate)
        await sending
        await server.nodes.refresh()
        await caller.create(usage_alert("1"))
        await asyncio.to_thread(move_away, caller.database_url, "c0")
    for one in servers:
        await one.send(*one.events(CUSTOMERS))
    isolated = (
        "SELECT count(*) FROM organization_epoch WHERE customer_id = 'c0' AND organization_id = %(organization_id)s"
    )
    assert await caller.rows(isolated) == [(1,)]
    await caller.create(usage_alert("2"))
    for one in servers:
        await one.nodes.refresh()
        await one.send(*one.events(CUSTOMERS))
    await assert_in_their_shards(caller)
    assert len(await caller.notifications()) == 2 * len(CUSTOMERS)
