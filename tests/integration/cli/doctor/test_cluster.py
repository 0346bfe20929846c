"""`tidemark doctor` finds what is wrong with the nodes of a cluster, and with the way to them."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cli.doctor.findings import Severity
from runtime.configuration import Configuration
from store.diagnosis import cluster_nodes
from store.postgres.addresses import at_node
from tests.support.cli.doctor import check
from tests.support.postgres.nodes import workers
from tests.support.server.sharing import own_database

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
