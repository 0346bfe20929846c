"""Checks of a Citus cluster; each is in order where no table is distributed."""

from collections.abc import Sequence

from cli.doctor.findings import Check, Examined, Finding, hint, ok, problem, shown_age, shown_size, warning
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
    why = "they hold the locks of their customers, and keep vacuum from removing dead rows"
    findings = []
    for node in found:
        for waiting, todo in (
            (
                [one for one in node.long_prepared if one.gid.startswith(cluster.OF_CITUS)],
                "SELECT recover_prepared_transactions() on the coordinator commits or rolls back what it decided; one"
                " that stays: was its coordinator replaced or restored? Then ROLLBACK PREPARED on the node",
            ),
            (
                [one for one in node.long_prepared if not one.gid.startswith(cluster.OF_CITUS)],
                "they are not of Citus: COMMIT PREPARED or ROLLBACK PREPARED on the node, as their program decided",
            ),
        ):
            if waiting:
                text = f"{len(waiting)} prepared transactions wait on {node.name}, the oldest, {waiting[0].gid}, for"
                findings.append(problem(f"{text} {shown_age(waiting[0].age)}", why, todo))
    return findings or [ok("no prepared transaction waits for long")]


async def slots(examined: Examined) -> Sequence[Finding]:
    """Whether a move or a split of a shard that failed has left replication slots."""
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    why = "the node keeps its log for it, until the disk is full. A move that has just begun has such a slot, too"
    findings = [
        warning(
            f"the replication slot {one.name} on {one.node} is not in use, and keeps {shown_size(one.size)} of log",
            why,
            "if SELECT * FROM get_rebalance_progress() shows no move: CALL citus_cleanup_orphaned_resources() on the"
            f" coordinator, and if it stays: SELECT pg_drop_replication_slot('{one.name}') on {one.node}",
        )
        for one in await cluster.move_slots(examined.connection)
    ]
    return findings or [ok("no move of a shard has left a replication slot")]


CHECKS = (
    Check("cluster.nodes", "nodes of a Citus cluster that do not answer", nodes),
    Check("cluster.tables", "tables that lie elsewhere on the cluster than decided", tables),
    Check("cluster.shards", "shards for the workers", shards),
    Check("cluster.transactions", "prepared transactions of the cluster that stay", transactions),
    Check("cluster.slots", "replication slots that a move of a shard has left", slots),
)
