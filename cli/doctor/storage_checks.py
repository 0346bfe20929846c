"""Checks of the tables: partitions, retention, dead rows, transaction ids, and the disk of the embedded server."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cli.doctor.findings import Check, Examined, Finding, ok, problem, shown_age, shown_size, warning
from store.deliveries.daily_partitions import DAYS_AHEAD
from store.diagnosis import cluster, server, storage
from store.diagnosis.storage import TableHealth
from store.postgres.partitions import month_start, next_month

# Tables whose rows are written again and again, or that are filled and emptied.
HOT_TABLES = (
    *("gauge", "alert_state", "group_count", "unique_value", "customer", "wallet", "balance", "customer_evaluation"),
    *("outbox", "feed", "feed_pending", "delivery_live", "endpoint", "heartbeat", "organization", "alert"),
)
LEAST_DEAD = 50_000  # rows
DEAD_WARNING, DEAD_PROBLEM = 0.5, 3.0  # dead rows for each live one
LEAST_ANALYZED = 10_000  # rows; a smaller table has a good plan without statistics
AGE_WARNING, AGE_PROBLEM = 600_000_000, 1_500_000_000  # transactions; PostgreSQL stops at about 2,100,000,000
RETENTION_SLACK = timedelta(days=2)  # upkeep runs hourly
DISK_WARNING, DISK_PROBLEM = 0.15, 0.05  # free part of the disk
LEAST_FREE = 1024**3  # bytes, below which the disk is a problem, whatever its size


async def event_partitions(examined: Examined) -> Sequence[Finding]:
    """Whether this month and the next one have a partition for events."""
    found = (await storage.partitions(examined.connection)).months
    this = month_start(examined.now())
    why = "events of a month without a partition are refused"
    todo = "start a server: each makes the partitions at its start and hourly, or says in its log why it cannot"
    if this not in found:
        return [problem(f"the month {this:%Y-%m} has no partition for events", why, todo)]
    if (following := next_month(this)) not in found:
        return [warning(f"the month {following:%Y-%m} has no partition for events", why, todo)]
    return [ok(f"{len(found)} months have partitions for events, up to {max(found):%Y-%m}")]


async def delivery_partitions(examined: Examined) -> Sequence[Finding]:
    """Whether the next days have partitions for deliveries and attempts."""
    found = await storage.partitions(examined.connection)
    today = (await server.clock(examined.connection)).astimezone(UTC).date()
    days = [today + timedelta(days=number) for number in range(DAYS_AHEAD)]
    missing = [day for day in days if day not in found.delivery_days or day not in found.attempt_days]
    if not missing:
        return [ok(f"the next {DAYS_AHEAD} days have partitions for deliveries and attempts")]
    why = "their rows go to the default partitions, from which they are not dropped but deleted"
    todo = "start a notifier: each makes the partitions at its start and hourly, or says in its log why it cannot"
    return [warning(f"{len(missing)} of the next {DAYS_AHEAD} days have no partition for deliveries", why, todo)]


async def retention(examined: Examined) -> Sequence[Finding]:
    """Whether what has passed its retention is dropped."""
    found = await storage.partitions(examined.connection)
    findings = []
    oldest_kept = examined.now() - examined.settings.retention - RETENTION_SLACK
    old = sorted(month for month in found.months if next_month(month) <= oldest_kept)
    if old:
        text = f"{len(old)} months of events are older than TIDEMARK_RETENTION_DAYS, the oldest is {old[0]:%Y-%m}"
        why = "a partition can be dropped only when no statement uses it, and upkeep gives up after 2 s"
        findings.append(warning(text, why, "read the log of the servers for upkeep; end long transactions first"))
    day = datetime.combine(min(found.delivery_days, default=examined.now().date()), datetime.min.time(), UTC)
    if day < examined.now() - examined.settings.delivery_retention - RETENTION_SLACK:
        text = f"deliveries of {day:%Y-%m-%d} are older than TIDEMARK_DELIVERY_RETENTION_DAYS"
        findings.append(warning(text, "the disk fills", "start a notifier: it drops them hourly"))
    days = examined.settings.retention.days
    return findings or [ok(f"nothing is older than its retention (events {days} days)")]


async def dead_rows(examined: Examined) -> Sequence[Finding]:
    """Dead rows of hot tables, and tables without a vacuum or statistics; on a cluster also those of each node."""
    found = await storage.tables(examined.connection, HOT_TABLES)
    if await cluster.version(examined.connection) is not None:
        found += await storage.shard_tables(examined.connection, HOT_TABLES)
    findings = [finding for one in sorted(found, key=lambda one: -one.dead) if (finding := _of_table(one, examined))]
    total = sum(one.dead for one in found)
    names = {one.name for one in found}
    return findings or [ok(f"{total:,} dead rows in {len(names)} hot tables; autovacuum keeps up")]


def _of_table(one: TableHealth, examined: Examined) -> Finding | None:
    where = "" if one.node is None else f" on {one.node}"
    if not one.is_vacuumed:
        why = "dead rows stay, and each statement reads more pages"
        return problem(
            f"autovacuum is off for the table {one.name}{where}",
            why,
            f"ALTER TABLE {one.name} RESET (autovacuum_enabled);",
        )
    share = one.dead / max(one.live, 1)
    if one.dead >= LEAST_DEAD and share >= DEAD_WARNING:
        last = "never" if one.vacuum_time is None else f"{shown_age(examined.now() - one.vacuum_time)} ago"
        rows = f"{one.dead:,} dead rows for {one.live:,} live ones"
        text = f"{one.name} has {rows}{where} ({shown_size(one.size)}); last vacuum {last}"
        why = "each statement reads more pages; a long transaction or a slow autovacuum keeps the rows"
        todo = (
            f"VACUUM (ANALYZE, VERBOSE) {one.name}; then end the long transactions that activity.transactions shows"
        )
        return problem(text, why, todo) if share >= DEAD_PROBLEM else warning(text, why, todo)
    if one.analyze_time is None and one.live >= LEAST_ANALYZED:
        text = f"{one.name} has {one.live:,} rows{where} and was never analyzed"
        return warning(text, "the planner guesses, and may read whole tables", f"ANALYZE {one.name};")
    return None


async def transaction_ids(examined: Examined) -> Sequence[Finding]:
    """How near PostgreSQL is to the end of its transaction ids."""
    age = await storage.transaction_age(examined.connection)
    text = f"the oldest transaction id is {age:,} transactions old, of about 2,100,000,000"
    if age < AGE_WARNING:
        return [ok(text)]
    why = "PostgreSQL accepts no more writes at the end"
    todo = "VACUUM (FREEZE, VERBOSE); end long transactions and drop unused replication slots first"
    return [problem(text, why, todo) if age >= AGE_PROBLEM else warning(text, why, todo)]


async def disk(examined: Examined) -> Sequence[Finding]:
    """How much of the disk of the embedded server is free."""
    if not examined.is_embedded:
        return [ok("the disk of the server cannot be seen from here: monitor it on its machine")]
    usage = shutil.disk_usage(examined.settings.data_directory)
    text = f"{shown_size(usage.free)} of {shown_size(usage.total)} are free at {examined.settings.data_directory}"
    share = usage.free / max(usage.total, 1)
    if share >= DISK_WARNING and usage.free >= LEAST_FREE:
        return [ok(text)]
    why = "PostgreSQL stops when the disk is full, and accepts nothing until there is space"
    todo = "free space on that disk, lower TIDEMARK_RETENTION_DAYS, or move TIDEMARK_DATA_DIRECTORY"
    act = share < DISK_PROBLEM or usage.free < LEAST_FREE
    return [problem(text, why, todo) if act else warning(text, why, todo)]


CHECKS = (
    Check("storage.event_partitions", "partitions for the events of this month and the next", event_partitions),
    Check("storage.delivery_partitions", "partitions for the deliveries of the next days", delivery_partitions),
    Check("storage.retention", "partitions that are older than their retention", retention),
    Check("storage.dead_rows", "dead rows, vacuums and statistics of hot tables", dead_rows),
    Check("storage.transaction_ids", "the age of the oldest transaction id", transaction_ids),
    Check("storage.disk", "free space on the disk of the embedded server", disk),
)
