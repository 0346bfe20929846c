"""Checks of the nodes of a Citus cluster: their settings, their connections, and the way to them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.doctor.cluster_checks import NO_CITUS
from cli.doctor.findings import Check, Examined, Finding, Severity, hint, ok, problem, warning
from server.calls.pool_division import divide
from store.citus.nodes import seats_at_node
from store.diagnosis import cluster, cluster_nodes
from store.diagnosis.cluster_nodes import NodeState
from store.postgres.addresses import at_node
from store.postgres.poolers import shares_sessions

OTHER_SESSIONS = 4  # of a process beside its pool: probe, watch, listen, revocations
CONNECTIONS_WARNING = 0.8  # of those that can be used


@dataclass(frozen=True)
class _Rule:
    """A setting of each node. is_right: of its value. todo: as one statement."""

    is_right: Callable[[str], bool]
    severity: Severity
    wanted: str
    why: str
    todo: str


_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}  # seconds of the units of PostgreSQL
RECOVERY = 10.0  # seconds between two recoveries of prepared transactions, at most


def is_soon(value: str) -> bool:
    """Whether a time, as PostgreSQL shows it, is not longer than RECOVERY."""
    unit = value.lstrip("-0123456789")
    return int(value.removesuffix(unit)) * _UNITS[unit or "ms"] <= RECOVERY


_BETWEEN_NODES = "sslmode=require keepalives_idle=10 keepalives_interval=5 keepalives_count=1 tcp_user_timeout=15000"
_RULES = {
    "fsync": _Rule(
        lambda value: value == "on",
        Severity.PROBLEM,
        "on",
        "an acknowledged event must be durable on the node of its customer",
        "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
    ),
    "full_page_writes": _Rule(
        lambda value: value == "on",
        Severity.PROBLEM,
        "on",
        "a crash of the machine can destroy pages",
        "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();",
    ),
    "synchronous_commit": _Rule(
        lambda value: value not in {"off", "local"},
        Severity.PROBLEM,
        "on",
        "sessions between nodes have this value: a crash loses what a server has acknowledged",
        "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();",
    ),
    "citus.recover_2pc_interval": _Rule(
        lambda value: value != "-1",
        Severity.PROBLEM,
        "1min",
        "after a crash of the coordinator, transactions that it has prepared keep their locks for good",
        "ALTER SYSTEM SET citus.recover_2pc_interval = '1min'; SELECT pg_reload_conf();",
    ),
    "citus.distributed_deadlock_detection_factor": _Rule(
        lambda value: value != "-1",
        Severity.WARNING,
        "2",
        "transactions of two servers that wait for each other end only by their lock_timeout",
        "ALTER SYSTEM SET citus.distributed_deadlock_detection_factor = 2; SELECT pg_reload_conf();",
    ),
    "citus.shard_replication_factor": _Rule(
        lambda value: value == "1",
        Severity.PROBLEM,
        "1",
        "a table with two copies of each row accepts no writes while a node is away; standbys are for that",
        "ALTER SYSTEM SET citus.shard_replication_factor = 1; SELECT pg_reload_conf();",
    ),
    "lc_messages": _Rule(
        lambda value: value in {"C", "POSIX"} or value.startswith(("C.", "en_")),
        Severity.WARNING,
        "C",
        "some errors of a node are known by their English text: others look like faults, and are not tried again",
        "ALTER SYSTEM SET lc_messages = 'C'; SELECT pg_reload_conf();",
    ),
    "wal_level": _Rule(
        lambda value: value == "logical",
        Severity.HINT,
        "logical",
        "shards are moved only with writes to them blocked: citus_rebalance_start() alone fails",
        "ALTER SYSTEM SET wal_level = logical; restart PostgreSQL",
    ),
    "citus.node_conninfo": _Rule(
        lambda value: "tcp_user_timeout" in value or "keepalives_idle" in value,
        Severity.HINT,
        "one with tcp_user_timeout",
        "a statement that waits for a machine which has vanished waits for many minutes",
        f"ALTER SYSTEM SET citus.node_conninfo = '{_BETWEEN_NODES}'; SELECT pg_reload_conf();",
    ),
}

# Of the same settings: what is better than what is right.
_ADVICE = {
    "citus.recover_2pc_interval": _Rule(
        is_soon,
        Severity.HINT,
        "5s",
        "what a node that was lost has prepared keeps its locks for so long after its return. Commits through the"
        " coordinator wait for them at the node, where no lock_timeout ends the wait",
        "ALTER SYSTEM SET citus.recover_2pc_interval = '5s'; SELECT pg_reload_conf();",
    ),
}


async def settings(examined: Examined) -> Sequence[Finding]:
    """Whether all nodes have the same versions, know the cluster, and have the settings that Tidemark relies on."""
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    found = await cluster_nodes.states(examined.connection, _RULES)
    findings = [
        problem(
            f"the node {name} is switched off, or does not know all tables",
            "usage of its customers fails, or goes through the coordinator",
            f"SELECT citus_activate_node('{name.rpartition(':')[0]}', {name.rpartition(':')[2]}) on the coordinator",
        )
        for name in await cluster_nodes.out_of_sync(examined.connection)
    ]
    findings += _versions(found)
    for name, rule in (*_RULES.items(), *_ADVICE.items()):
        for value, nodes in _by_value(found, name).items():
            if not rule.is_right(value):
                text = f"{name} is {value}, and not {rule.wanted}, on {', '.join(nodes)}"
                findings.append(Finding(rule.severity, text, rule.why, f"on each of them: {rule.todo}"))
    return findings or [ok(f"{len(found)} nodes have the same versions, and settings that suit a cluster")]


def _by_value(found: Sequence[NodeState], name: str) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for node in found:
        if name in node.settings:
            values.setdefault(node.settings[name], []).append(node.name)
    return values


def _versions(found: Sequence[NodeState]) -> list[Finding]:
    shown = ", ".join(f"{one.name}: PostgreSQL {one.version // 10_000}, Citus {one.citus}" for one in found)
    if len({(one.version // 10_000, one.citus) for one in found}) > 1:
        why = "nodes send statements and copies of shards to one another in the form of their own version"
        todo = "upgrade the others; after that ALTER EXTENSION citus UPDATE on each node, the coordinator first"
        return [problem(f"nodes have different versions ({shown})", why, todo)]
    if len({one.version for one in found}) > 1:
        shown = ", ".join(f"{one.name}: {one.version // 10_000}.{one.version % 10_000}" for one in found)
        why = "a fault that a minor version mends is mended on some nodes only"
        return [hint(f"nodes have different minor versions of PostgreSQL ({shown})", why, "upgrade the others")]
    return []


async def connections(examined: Examined) -> Sequence[Finding]:
    """Whether each node allows the sessions of all processes.

    Each session at the coordinator can have one at each node, and a server has a pool at each worker, too.
    """
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    found = await cluster_nodes.states(examined.connection, {"max_prepared_transactions"})
    workers = sum(1 for one in found if one.group)
    number = await cluster_nodes.processes(examined.connection)
    size = examined.settings.pool_size
    through_coordinator = number * (size + OTHER_SESSIONS)
    seats = divide(size, examined.settings.ingest_writers).ingest
    own = number * seats_at_node(seats, workers) if examined.settings.database_nodes is not None else 0
    findings = []
    for node in found:
        most = through_coordinator + (own if node.group else through_coordinator)
        text = f"{node.used} of {node.usable} sessions are used on {node.name}"
        if most > node.usable:
            findings.append(
                warning(
                    f"{text}, and {number} processes of Tidemark can open {most} (TIDEMARK_POOL_SIZE {size})",
                    "a process that gets no connection refuses calls with UNAVAILABLE",
                    "lower TIDEMARK_POOL_SIZE, or raise max_connections on this node, and restart it",
                )
            )
        elif node.used > CONNECTIONS_WARNING * node.usable:
            findings.append(
                warning(text, "reads over all shards open more for a moment", "raise max_connections on this node")
            )
        if (prepared := int(node.settings["max_prepared_transactions"])) < number * size:
            findings.append(
                warning(
                    f"max_prepared_transactions is {prepared} on {node.name}, and {number} processes can prepare"
                    f" {number * size}",
                    "a transaction that cannot be prepared fails",
                    "set it on each node to the pools of all servers and notifiers together, and restart",
                )
            )
    return findings or [ok(f"{number} processes can open {through_coordinator + own} sessions on a worker at most")]


async def reach(examined: Examined) -> Sequence[Finding]:
    """Whether this machine reaches each worker where a server of these settings would."""
    if await cluster.version(examined.connection) is None:
        return [ok(NO_CITUS)]
    if examined.settings.database_nodes is None:
        text = "usage goes through the coordinator: TIDEMARK_DATABASE_NODES is coordinator"
        return [hint(text, "throughput does not grow with workers", "leave it out if servers reach the workers")]
    overrides = dict(examined.settings.database_nodes)
    workers = await cluster_nodes.workers(examined.connection)
    findings = [
        problem(
            f"TIDEMARK_DATABASE_NODES names {name}, which is no worker of the cluster",
            "it has no effect: the worker that is meant is looked for at the address that the cluster has",
            f"write one of these before the equals sign: {', '.join(workers)}",
        )
        for name in overrides
        if name not in workers
    ]
    addresses = {name: overrides.get(name, name) for name in workers}
    groups = await asyncio.gather(
        *(cluster_nodes.group_at(at_node(examined.url, address)) for address in addresses.values())
    )
    for (name, address), group in zip(addresses.items(), groups, strict=True):
        if not isinstance(group, str) and await asyncio.to_thread(shares_sessions, at_node(examined.url, address)):
            why = "prepared statements and session settings fail, or reach other clients; servers refuse to start"
            todo = "set pool_mode = session in PgBouncer for this database, or name the address of the worker itself"
            findings.append(problem(f"a transaction pooler answers for {name} at {address}", why, todo))
        if isinstance(group, str):
            findings.append(
                problem(
                    f"the worker {name} cannot be reached at {address} from this machine: {group}",
                    "servers try it again and again, and send its usage through the coordinator meanwhile",
                    f"name the address that servers reach: TIDEMARK_DATABASE_NODES={name}=HOST:PORT; or coordinator",
                )
            )
        elif group != workers[name]:
            findings.append(
                problem(
                    f"another node than the worker {name} answers at {address}",
                    "usage of its customers goes to a node that does not have their rows",
                    "correct TIDEMARK_DATABASE_NODES",
                )
            )
    return findings or [ok(f"this machine reaches each of {len(workers)} workers")]


CHECKS = (
    Check("cluster.settings", "versions and settings of each node of the cluster", settings),
    Check("cluster.connections", "sessions that each node allows, and those that processes can open", connections),
    Check("cluster.reach", "workers that this machine cannot reach where a server would", reach),
)
