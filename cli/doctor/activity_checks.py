"""Checks of what the sessions do: long transactions, waits for locks, slow statements."""

from collections.abc import Sequence
from datetime import timedelta

from cli.doctor.findings import Check, Examined, Finding, by_age, ok, shown_age, warning
from store.diagnosis import activity
from store.diagnosis.activity import Session

LONG_TRANSACTION, VERY_LONG_TRANSACTION = timedelta(minutes=1), timedelta(minutes=15)
LONG_WAIT, VERY_LONG_WAIT = timedelta(seconds=2), timedelta(seconds=30)
LONG_STATEMENT, VERY_LONG_STATEMENT = timedelta(seconds=10), timedelta(minutes=5)
SLOW_MEAN = timedelta(milliseconds=500)
LEAST_CALLS = 20  # of a kind of statement that is reported as slow


async def long_transactions(examined: Examined) -> Sequence[Finding]:
    """Transactions that have been open for long."""
    found = await activity.long_transactions(examined.connection, LONG_TRANSACTION)
    why = "vacuum keeps every row that was deleted since its beginning, so tables and indexes grow"
    return [
        by_age(
            one.duration,
            f"{_name(one)} is in a transaction for {shown_age(one.duration)} ({one.state}): {one.statement}",
            why,
            f"SELECT pg_terminate_backend({one.pid});",
            warn=LONG_TRANSACTION,
            act=VERY_LONG_TRANSACTION,
        )
        for one in found
    ] or [ok(f"no transaction is older than {shown_age(LONG_TRANSACTION)}")]


async def waits(examined: Examined) -> Sequence[Finding]:
    """Statements that wait for locks."""
    found = await activity.waits(examined.connection, LONG_WAIT)
    return [
        by_age(
            one.duration,
            f"{_name(one)} has waited for a lock for {shown_age(one.duration)}: {one.statement}",
            "the call or commit behind it waits, too",
            f"SELECT pg_terminate_backend({(*one.blocked_by, one.pid)[0]}); ends the session that it waits for",
            warn=LONG_WAIT,
            act=VERY_LONG_WAIT,
        )
        for one in found
    ] or [ok(f"no statement has waited for a lock for {shown_age(LONG_WAIT)}")]


async def running(examined: Examined) -> Sequence[Finding]:
    """Statements that have run for long."""
    found = await activity.running_statements(examined.connection, LONG_STATEMENT)
    return [
        by_age(
            one.duration,
            f"{_name(one)} has run a statement for {shown_age(one.duration)}: {one.statement}",
            "it uses the disk and the processors that usage needs",
            f"SELECT pg_cancel_backend({one.pid});",
            warn=LONG_STATEMENT,
            act=VERY_LONG_STATEMENT,
        )
        for one in found
    ] or [ok(f"no statement has run for {shown_age(LONG_STATEMENT)}")]


async def slow(examined: Examined) -> Sequence[Finding]:
    """Kinds of statements that are slow on average."""
    found = await activity.slow_statements(examined.connection, SLOW_MEAN, LEAST_CALLS)
    if found is None:
        return [ok("pg_stat_statements is not installed, so slow kinds of statements are not known")]
    return [
        warning(
            f"{one.calls:,} calls took {one.mean.total_seconds():.2f} s on average: {one.statement}",
            "no statement of Tidemark takes that long while its tables are vacuumed and analyzed",
            "run ANALYZE, then compare EXPLAIN with docs/performance.md; pg_stat_statements_reset() starts anew",
        )
        for one in found
    ] or [ok(f"no kind of statement takes {SLOW_MEAN.total_seconds():.1f} s on average")]


def _name(one: Session) -> str:
    """A session for people."""
    return f"process {one.pid} ({one.application or 'no name'}, user {one.user})"


CHECKS = (
    Check("activity.transactions", "transactions that have been open for long", long_transactions),
    Check("activity.waits", "statements that wait for locks", waits),
    Check("activity.running", "statements that have run for long", running),
    Check("activity.slow", "kinds of statements that are slow (pg_stat_statements)", slow),
)
