"""`tidemark doctor` finds what is wrong with the nodes of a cluster, and with the way to them."""

from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cli.doctor import storage_checks
from cli.doctor.cluster_node_checks import is_soon
from cli.doctor.findings import Severity
from runtime.configuration import Configuration
from store.diagnosis import cluster, cluster_nodes
from store.postgres.addresses import at_node
from tests.support.cli.doctor import check
from tests.support.postgres.nodes import workers
from tests.support.server.sharing import own_database
from tests.support.usage.caller import until

pytestmark = [
    own_database,
    pytest.mark.skipif(
        not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
    ),
]


async def _reached(url: str, *nodes: tuple[str, str]) -> list[str]:
    found = await check(url, "cluster.reach", settings=Configuration(database_url=url, database_nodes=nodes))
    return [one.found for one in found.findings if one.severity is Severity.PROBLEM]


async def test_addresses_of_workers_that_are_wrong_are_found(database_url: str) -> None:
    first, second = map(str, workers())
    assert await _reached(database_url) == []
    assert await _reached(database_url, (first, first)) == []
    [other] = await _reached(database_url, (first, second))
    assert other == f"another node than the worker {first} answers at {second}"
    [away] = await _reached(database_url, (first, "127.0.0.1:1"))
    assert f"the worker {first} cannot be reached at 127.0.0.1:1" in away
    [unknown] = await _reached(database_url, ("worker-9:5432", first))
    assert unknown == "TIDEMARK_DATABASE_NODES names worker-9:5432, which is no worker of the cluster"


async def test_a_worker_whose_commits_are_not_durable_is_found(database_url: str) -> None:
    worker = workers()[1]
    name = conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(at_node(database_url, str(worker)), autocommit=True) as connection:
        connection.execute("SET citus.enable_ddl_propagation = off")
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    found = await check(database_url, "cluster.settings")
    [finding] = [one for one in found.findings if one.found.startswith("synchronous_commit")]
    assert finding.found == f"synchronous_commit is off, and not on, on {worker}"
    assert finding.severity is Severity.PROBLEM


async def test_more_processes_than_a_node_has_sessions_for_are_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def many(_: object) -> int:
        return 10_000

    assert (await check(database_url, "cluster.connections")).severity is Severity.OK
    monkeypatch.setattr(cluster_nodes, "processes", many)
    found = (await check(database_url, "cluster.connections")).findings
    # Each of three nodes lacks sessions, and transactions that it can prepare.
    assert len(found) == 6
    assert all(one.severity is Severity.WARNING and "10000 processes" in one.found for one in found)


async def _findings(url: str, check_id: str) -> list[str]:
    """What a check finds that is not in order."""
    return [one.found for one in (await check(url, check_id)).findings if one.severity is not Severity.OK]


async def test_prepared_transactions_that_stay_are_found_on_each_node(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a transaction of Citus and one of another program, on the coordinator and on a worker."""
    monkeypatch.setattr(cluster, "LONG_PREPARED", timedelta())
    assert await _findings(database_url, "cluster.transactions") == []
    worker = at_node(database_url, str(workers()[1]))
    known = {"citus_0_1_2_3": worker, "of another program": database_url}
    for gid, url in known.items():
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT txid_current()")
            connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
    try:
        found = (await check(database_url, "cluster.transactions")).findings
        texts = {one.found: one.todo for one in found}
        [of_citus] = [text for text in texts if f"wait on {workers()[1]}, the oldest, citus_0_1_2_3, for" in text]
        assert "recover_prepared_transactions()" in texts[of_citus]
        [other] = [text for text in texts if "the oldest, of another program, for" in text]
        assert "ROLLBACK PREPARED" in texts[other]
        assert {one.severity for one in found} == {Severity.PROBLEM}
    finally:
        for gid, url in known.items():
            with psycopg.connect(url, autocommit=True) as connection, suppress(psycopg.errors.UndefinedObject):
                connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())


async def test_a_replication_slot_that_a_move_has_left_is_found_on_its_node(database_url: str) -> None:
    assert await _findings(database_url, "cluster.slots") == []
    worker, name = workers()[0], "citus_shard_move_slot_1_2_3"
    with psycopg.connect(at_node(database_url, str(worker)), autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
        try:
            [found] = await _findings(database_url, "cluster.slots")
        finally:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
    assert found.startswith(f"the replication slot {name} on {worker} is not in use")


async def test_dead_rows_and_a_shard_without_autovacuum_are_found_on_their_node(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_checks, "LEAST_DEAD", 100)
    assert await _findings(database_url, "storage.dead_rows") == []
    worker = workers()[0]
    with psycopg.connect(at_node(database_url, str(worker)), autocommit=True) as connection:
        for setting in ("citus.override_table_visibility = off", "citus.enable_manual_changes_to_shards = on"):
            connection.execute(f"SET {setting}".encode())
        shards = "SELECT min(relname) FROM pg_class WHERE relname ~ '^(gauge|wallet)_[0-9]+$'"
        [(gauge,), (wallet,)] = connection.execute(
            f"{shards} GROUP BY left(relname, 5) ORDER BY 1".encode()
        ).fetchall()
        for statement in (
            f"ALTER TABLE {gauge} SET (autovacuum_enabled = false)",
            f"ALTER TABLE {wallet} SET (autovacuum_vacuum_threshold = 1000000)",  # so that its dead rows stay
            f"INSERT INTO {wallet} (organization_id, customer_id) SELECT 1, n::text FROM generate_series(1, 500) n",
            f"DELETE FROM {wallet}",
            "SELECT pg_stat_force_next_flush()",
        ):
            connection.execute(statement.encode())
    off, dead = f"autovacuum is off for the table gauge on {worker}", "wallet has 500 dead rows"

    async def found() -> bool:
        texts = await _findings(database_url, "storage.dead_rows")
        return off in texts and any(text.startswith(dead) and f"on {worker}" in text for text in texts)

    await until(found)


async def test_a_late_recovery_of_prepared_transactions_is_found(database_url: str) -> None:
    found = (await check(database_url, "cluster.settings")).findings
    [hint] = [one for one in found if one.found.startswith("citus.recover_2pc_interval")]
    assert (hint.severity, "is 1min, and not 5s" in hint.found) == (Severity.HINT, True)
    soon, late = ("10s", "5s", "500ms"), ("11s", "1min", "90500ms", "1h")
    assert [is_soon(value) for value in (*soon, *late)] == [True] * len(soon) + [False] * len(late)
