"""Checks of a Citus cluster; each is in order where no table is distributed."""

from collections.abc import Sequence

from cli.doctor.findings import Check, Examined, Finding, hint, ok, problem, warning
from store.diagnosis import cluster

FEW_SHARDS, GOOD_SHARDS = 4, 8  # for each worker
NO_CITUS = "the tables lie on one server: the database has no extension Citus"
_ONE_SERVER = "the tables lie on one server: none is distributed"


async def nodes(examined: Examined) -> Sequence[Finding]:
    """Whether each node of the cluster answers."""
    version = await cluster.version(examined.connection)
    if version is None:
        return [ok(NO_CITUS)]
    found = await cluster.nodes(examined.connection)
    why = "calls about its customers, and statements about all of them, fail with UNAVAILABLE until it is back"
    todo = "start it; Tidemark goes on by itself. SELECT * FROM citus_check_cluster_node_health() tests each pair"
    return [
        problem(f"the node {node.name} does not answer: {node.error}", why, todo)
        for node in cluster.without_answer(found)
    ] or [ok(f"Citus {version}: {len(found)} nodes answer")]


async def tables(examined: Examined) -> Sequence[Finding]:
    """Whether each table lies where this version decides."""
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    found = await cluster.misplaced(examined.connection)
    if found is None:
        why = "the cluster is not used; all work is done by the coordinator"
        return [hint(_ONE_SERVER, why, "stop servers and notifiers, and run tidemark migrate --citus")]
    why = "statements that join it with tables that lie elsewhere fail"
    todo = "tidemark migrate moves a table that is new; another one: undistribute_table, then tidemark migrate"
    return [
        problem(f"the table {name} does not lie where it should: {place.value}", why, todo)
        for name, place in found.items()
    ] or [ok("each table lies in its place")]


async def shards(examined: Examined) -> Sequence[Finding]:
    """Whether there are enough shards for the workers, and each of them has some."""
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    found = [node for node in await cluster.nodes(examined.connection) if node.takes_shards]
    total = sum(node.shards for node in found)
    if not total:
        return [ok(_ONE_SERVER)]
    each = f"{total} shards on {len(found)} workers"
    findings = [
        warning(
            f"the node {node.name} has none of the {total} shards",
            "it does no work",
            "SELECT citus_rebalance_start(); servers may run meanwhile",
        )
        for node in found
        if not node.shards
    ]
    why = "a worker more takes whole shards: with few of them, the load is uneven"
    todo = (
        "SELECT alter_distributed_table('customer', shard_count => …, cascade_to_colocated => true), without servers"
    )
    if total < FEW_SHARDS * len(found):
        findings.append(warning(each, why, todo))
    elif total < GOOD_SHARDS * len(found):
        findings.append(hint(each, why, todo))
    return findings or [ok(each)]


async def transactions(examined: Examined) -> Sequence[Finding]:
    """Whether prepared transactions are left behind."""
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    found = [node for node in await cluster.nodes(examined.connection) if node.error is None]
    findings = [
        problem(
            f"{node.long_prepared} prepared transactions wait on {node.name} for longer than"
            f" {cluster.LONG_PREPARED.total_seconds():.0f} s",
            "they hold the locks of their customers, and keep vacuum from removing dead rows",
            "SELECT recover_prepared_transactions() on the coordinator; the rest: COMMIT or ROLLBACK PREPARED",
        )
        for node in found
        if node.long_prepared
    ]
    return findings or [ok("no prepared transaction waits for long")]


CHECKS = (
    Check("cluster.nodes", "nodes of a Citus cluster that do not answer", nodes),
    Check("cluster.tables", "tables that lie elsewhere on the cluster than decided", tables),
    Check("cluster.shards", "shards for the workers", shards),
    Check("cluster.transactions", "prepared transactions of the cluster", transactions),
)
