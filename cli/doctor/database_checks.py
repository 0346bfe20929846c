"""Checks of the database server: version, role, pooler, clock, connections, schema, settings."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from cli.doctor.findings import Check, Examined, Finding, hint, ok, problem, shown_size, warning
from store.diagnosis import schema, server, session
from store.migrate import MINIMUM_SERVER_VERSION
from store.postgres.poolers import shares_sessions
from store.postgres.recommended_settings import DURABLE, GB, Machine, recommended

SKEW_WARNING, SKEW_PROBLEM = timedelta(seconds=2), timedelta(seconds=60)
CONNECTIONS_WARNING, CONNECTIONS_PROBLEM = 0.8, 0.95  # of those that can be used
SLOT_WARNING = GB  # bytes of the log that an unused replication slot keeps
# The settings are compared with those for a machine of this size: the machine of the server is not known.
SMALL_MACHINE = Machine(memory=2 * GB, disk=20 * GB)
GOOD_PAGE_COST, DEFAULT_PAGE_COST = 2.0, 4.0  # random_page_cost for disks without moving parts; PostgreSQL's own
# Those that Tidemark's sessions set themselves, or whose other values cost little.
_NOT_COMPARED = {"jit", "wal_compression", "min_wal_size", "maintenance_work_mem", "checkpoint_timeout"}

_RELOAD = "SELECT pg_reload_conf()"
_APPLY = {"shared_buffers": "restart PostgreSQL"}  # what PostgreSQL reads only when it starts


async def version(examined: Examined) -> Sequence[Finding]:
    """Whether Tidemark supports the server."""
    found = await server.facts(examined.connection)
    text = f"PostgreSQL {found.version_text}, database {found.database}, {shown_size(found.size)}, {found.encoding}"
    if found.version < MINIMUM_SERVER_VERSION:
        return [problem(text, "Tidemark needs PostgreSQL 15 or newer", "upgrade the server with pg_upgrade")]
    if found.encoding != "UTF8":
        todo = "CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8', and move the data with pg_dump"
        return [problem(text, "ids and names can have any character of UTF-8", todo)]
    return [ok(text)]


async def writable(examined: Examined) -> Sequence[Finding]:
    """Whether the server accepts writes."""
    found = await server.facts(examined.connection)
    if found.is_standby:
        todo = "name the primary in TIDEMARK_DATABASE_URL, or several hosts with target_session_attrs=read-write"
        return [problem("the server is a standby", "nothing can be written, so no usage is accepted", todo)]
    if found.is_read_only:
        todo = f"ALTER DATABASE {found.database} RESET default_transaction_read_only; also check the role"
        return [problem("sessions are read-only by default", "nothing can be written", todo)]
    return [ok("the server is a primary and accepts writes")]


async def pooler(examined: Examined) -> Sequence[Finding]:
    """Whether each connection has a session of its own, with the settings that it sets."""
    if await asyncio.to_thread(shares_sessions, examined.url):
        todo = "set pool_mode = session in PgBouncer for this database, or connect to the server itself"
        why = "prepared statements, session settings and LISTEN fail, or reach other clients"
        return [problem("a proxy gives connections shared sessions (transaction pooling)", why, todo)]
    if differing := await session.pins_that_differ(examined.url):
        why = "locks and isolation depend on them"
        todo = (
            "set server_reset_query_always = 0 and pool_mode = session in the proxy, or connect to the server itself"
        )
        return [problem(f"a session loses settings: {', '.join(differing)}", why, todo)]
    return [ok("each connection has a session of its own, and keeps its settings (read committed, UTC)")]


async def clock(examined: Examined) -> Sequence[Finding]:
    """How far the clocks of this machine and of the database are apart."""
    before = examined.now()
    there = await server.clock(examined.connection)
    after = examined.now()
    skew = abs(there - (before + (after - before) / 2))
    text = f"the clocks of this machine and of the database are {skew.total_seconds():.2f} s apart"
    if skew < SKEW_WARNING:
        return [ok(text)]
    why = "servers compute periods by their own clock, and accept events up to 5 minutes ahead of it"
    todo = "start a time service on both machines: timedatectl set-ntp true; chronyc tracking shows the offset"
    return [problem(text, why, todo) if skew >= SKEW_PROBLEM else warning(text, why, todo)]


async def connections(examined: Examined) -> Sequence[Finding]:
    """How many of the server's connections are used."""
    found = await server.connections(examined.connection)
    text = f"{found.used} of {found.usable} connections are used, {found.of_tidemark} by Tidemark"
    share = found.used / max(found.usable, 1)
    if share < CONNECTIONS_WARNING:
        return [ok(text)]
    why = "a process that gets no connection refuses calls with UNAVAILABLE"
    todo = "lower TIDEMARK_POOL_SIZE, or raise max_connections (ALTER SYSTEM SET max_connections = …; restart)"
    return [problem(text, why, todo) if share >= CONNECTIONS_PROBLEM else warning(text, why, todo)]


async def revision(examined: Examined) -> Sequence[Finding]:
    """Whether the schema is that of this version."""
    found = await schema.schema_state(examined.connection)
    if found.is_newer:
        text = f"a newer version migrated the schema to revision {found.revision}; this version knows {found.head}"
        if found.is_usable:
            return [ok(f"{text}, and can use it")]
        why = "this version cannot run on it, and a migration cannot be undone"
        return [problem(text, why, "start the version that migrated it, or a newer one")]
    if found.pending:
        number = len(found.pending)
        text = f"{number} migration{'' if number == 1 else 's'} pending: the schema is at {found.revision or 'none'}"
        why = "servers with TIDEMARK_MIGRATE=never refuse to start; others migrate when they start"
        return [problem(f"{text}, this version needs {found.head}", why, "tidemark migrate")]
    return [ok(f"the schema is at revision {found.revision}, that of this version")]


async def durability(examined: Examined) -> Sequence[Finding]:
    """Whether a crash can lose what was acknowledged."""
    found = await server.settings(examined.connection, [one.name for one in DURABLE])
    stricter = {"synchronous_commit": {"on", "remote_apply", "remote_write"}}
    # Sessions of Tidemark set synchronous_commit themselves.
    wrong = [
        one
        for one in DURABLE
        if one.name != "synchronous_commit" and found.get(one.name) not in stricter.get(one.name, {one.value})
    ]
    findings = [
        problem(
            f"{one.name} is {found.get(one.name)}, and not {one.value}",
            f"an acknowledged event must be durable; {one.why}",
            f"ALTER SYSTEM SET {one.name} = {one.value}; SELECT pg_reload_conf();",
        )
        for one in wrong
    ]
    return findings or [ok("fsync and full_page_writes are on, and commits wait for the disk")]


async def speed(examined: Examined) -> Sequence[Finding]:
    """Whether settings that decide the speed have at least the values for a small machine.

    PostgreSQL's own defaults are slower and work: they are a hint. Values below them are a warning.
    """
    wanted = {one.name: one for one in recommended(SMALL_MACHINE) if one.name not in _NOT_COMPARED}
    sizes = [name for name, one in wanted.items() if one.value.endswith("MB")]
    compared = await server.sizes(examined.connection, {name: wanted[name].value for name in sizes})
    found = {name: hint if one.present >= one.default else warning for name, one in compared.items() if one.is_low}
    present = await server.settings(examined.connection, list(wanted))
    if present.get("autovacuum") != "on":
        found["autovacuum"] = warning
    if (cost := float(present.get("random_page_cost", "1.1"))) > GOOD_PAGE_COST:
        found["random_page_cost"] = hint if cost <= DEFAULT_PAGE_COST else warning
    findings = [
        kind(
            f"{name} is {present[name]}; {wanted[name].value} suits a machine of 2 GiB memory",
            wanted[name].why,
            f"ALTER SYSTEM SET {name} = '{wanted[name].value}'; {_APPLY.get(name, _RELOAD)}; see docs/performance.md",
        )
        for name, kind in found.items()
    ]
    return findings or [ok("memory, log and planner settings suit a machine of 2 GiB memory or more")]


async def slots(examined: Examined) -> Sequence[Finding]:
    """Whether replication slots without a replica keep the log."""
    found = [one for one in await server.unused_slots(examined.connection) if one.retained >= SLOT_WARNING]
    why = "the log grows until the disk is full"
    return [
        warning(
            f"the replication slot {one.name} has no replica, and keeps {shown_size(one.retained)} of the log",
            why,
            f"start its replica again, or SELECT pg_drop_replication_slot('{one.name}');",
        )
        for one in found
    ] or [ok("no unused replication slot keeps the log")]


CHECKS = (
    Check("database.version", "PostgreSQL's version, and the encoding of the database", version),
    Check("database.writable", "a primary that accepts writes", writable),
    Check("database.pooler", "a session for each connection: no transaction pooling, and settings that stay", pooler),
    Check("database.clock", "the clocks of this machine and of the database", clock),
    Check("database.connections", "connections that are left", connections),
    Check("database.slots", "replication slots without a replica", slots),
    Check("schema.revision", "migrations that are pending, or of a newer version", revision),
    Check("settings.durability", "settings with which a crash loses acknowledged events", durability),
    Check("settings.speed", "memory, log and planner settings", speed),
)
