"""The rows of the part that measure Tidemark."""

import statistics
import time

import psycopg

from bench.enforcement.calls import BATCH, BATCH_CHECK, CHECK, EMPTY, RESERVE, Calls, Paced
from bench.enforcement.requests import CALLERS, CUSTOMERS
from bench.enforcement.streams import DECISIONS, Pairs
from bench.enforcement.watches import Watches
from bench.support import cpu, memory
from bench.support.access import Access
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.goals import Figure, Goal
from bench.support.stack import Stack

ROUNDS = 3
PAIR_SECONDS = 2.5  # of one round
MOST_MESSAGES = 500  # of one round and kind: 25,000 pairs
CALL_SECONDS = 1.5
MOST_CALLS = 15_000  # of one round
RATE = 300
PACED_SECONDS = 8.0

SPREAD, ONE = "one customer each", "one customer for all"


async def pairs(client: Client, stack: Stack) -> list[Figure]:
    """Pairs on one stream, and whether the meters are what was settled."""
    figures = []
    for title, customers, goal in ((SPREAD, CUSTOMERS, 5_000), (ONE, 1, 2_000)):
        rates, done, of_server, of_database = [], 0, 0.0, 0.0
        for number in range(ROUNDS + 1):  # the first warms up
            name = f"pairs-{customers}-{number}"
            run = await client.prepare(Pairs(Access(stack.server), name, customers, MOST_MESSAGES, PAIR_SECONDS))
            database, server = cpu.Meter(stack.postmaster_pid), cpu.seconds(*stack.server_pids)
            found = await run()
            if number:
                rates.append(found.pairs / found.seconds)
                done += found.pairs
                of_server += cpu.seconds(*stack.server_pids) - server
                of_database += database.used()
        details = {"rounds": [round(rate) for rate in rates], "decisions_of_a_message": DECISIONS}
        what = f"reserve + settle on one stream, {title}"
        figures += [
            Figure("pairs", what, statistics.median(rates), "/s", Goal(goal), details),
            Figure("pairs", f"CPU of the server for a pair, {title}", 1e6 * of_server / done, "µs"),
            Figure("pairs", f"CPU of the database for a pair, {title}", 1e6 * of_database / done, "µs"),
        ]
    wrong = wrong_meters(stack.url)
    figures.append(Figure("pairs", "meters that differ from the stored events", wrong, "", Goal(0, at_most=True)))
    return figures


async def reserves(client: Client, stack: Stack) -> list[Figure]:
    """ReserveUsage by callers that wait, and at a steady rate."""
    empty, called, ratios = await _beside_empty(client, stack, RESERVE)
    took = await (await client.prepare(Paced(Access(stack.server), "paced", RATE, PACED_SECONDS)))()
    return [
        Figure("reserve", f"empty unary call, {CALLERS} callers", empty, "/s"),
        Figure("reserve", f"ReserveUsage, {CALLERS} callers", called, "/s"),
        Figure("reserve", "ReserveUsage ÷ empty", statistics.median(ratios), "", Goal(0.4), {"rounds": ratios}),
        Figure("reserve", f"ReserveUsage at {RATE}/s, p50", milliseconds(took, 0.5), "ms", Goal(5, at_most=True)),
        Figure("reserve", f"ReserveUsage at {RATE}/s, p99", milliseconds(took, 0.99), "ms", Goal(15, at_most=True)),
    ]


async def checks(client: Client, stack: Stack) -> list[Figure]:
    """CheckUsage and BatchCheckUsage."""
    _, called, ratios = await _beside_empty(client, stack, CHECK)
    rates = []
    for number in range(ROUNDS + 1):
        job = Calls(Access(stack.server), BATCH_CHECK, f"batch-{number}", CALL_SECONDS, 2_000, callers=4)
        rates += [BATCH * await (await client.prepare(job))()] if number else []
    details = {"rounds": [round(rate) for rate in rates]}
    return [
        Figure("check", f"CheckUsage, {CALLERS} callers", called, "/s"),
        Figure("check", "CheckUsage ÷ empty", statistics.median(ratios), "", Goal(0.5), {"rounds": ratios}),
        Figure(
            "check", f"checks in BatchCheckUsage of {BATCH}", statistics.median(rates), "/s", Goal(20_000), details
        ),
    ]


# Streams, customers and usages of each, and changes.
_WATCHED = ((1, 10, 1, 20), (1, 1_000, 1, 20), (1, 1_000, 10, 10), (10, 1_000, 10, 5), (100, 1, 1, 20))


async def watches(client: Client, stack: Stack) -> list[Figure]:
    """WatchDecisions: the first decisions of all streams, how soon a change arrives, and the memory of the server."""
    figures = []
    for number, (streams, customers, usages, changes) in enumerate(_WATCHED):
        decisions = streams * customers * usages if usages > 1 else customers
        what = f"{streams} streams, {decisions:,} decisions" if streams > 1 else f"{decisions:,} decisions"
        before = memory.of(stack.server_pid)
        run = await client.prepare(Watches(Access(stack.server), f"w{number}", streams, customers, usages, changes))
        used = cpu.seconds(*stack.server_pids)
        started = time.perf_counter()
        found = await run()
        seconds = time.perf_counter() - started
        share = (cpu.seconds(*stack.server_pids) - used) / seconds
        after = memory.of(stack.server_pid)
        delays = [1000 * one for one in found.delays]
        figures += [
            Figure("watch", f"{what}: seconds until all came", found.first, "s"),
            Figure("watch", f"{what}: a change arrives after, median", statistics.median(delays), "ms"),
            Figure("watch", f"{what}: a change arrives after, at most", max(delays), "ms"),
            Figure("watch", f"{what}: CPU of the server", 100 * share, "%"),
        ]
        if before is not None and after is not None:
            megabytes = (after.resident - before.resident) / 1e6
            figures.append(Figure("watch", f"{what}: memory of the server, more than before", megabytes, "MB"))
    return figures


async def _beside_empty(client: Client, stack: Stack, kind: str) -> tuple[float, float, list[float]]:
    """The median rates of empty calls and of those of a kind, in turn, and the ratio of each round."""
    rates: dict[str, list[float]] = {EMPTY: [], kind: []}
    for number in range(ROUNDS + 1):
        for one in rates:
            job = Calls(Access(stack.server), one, f"{kind}-{number}", CALL_SECONDS, MOST_CALLS)
            rate = await (await client.prepare(job))()
            rates[one] += [rate] if number else []
    ratios = [round(after / before, 3) for before, after in zip(rates[EMPTY], rates[kind], strict=True)]
    return statistics.median(rates[EMPTY]), statistics.median(rates[kind]), ratios


_WRONG = """
SELECT count(*) FROM (
    SELECT organization_id, customer_id, sum(counted) AS counted, sum(held) AS held FROM meter GROUP BY 1, 2
) m FULL JOIN (
    SELECT organization_id, customer_id, sum(quantity) AS quantity FROM event GROUP BY 1, 2
) e USING (organization_id, customer_id) FULL JOIN (
    SELECT organization_id, customer_id, sum(granted_quantity) AS granted FROM reservation WHERE state = 'OPEN'
    GROUP BY 1, 2
) r USING (organization_id, customer_id)
WHERE coalesce(m.counted, 0) <> coalesce(e.quantity, 0) OR coalesce(m.held, 0) <> coalesce(r.granted, 0)
"""


def wrong_meters(url: str) -> int:
    """Customers whose meters differ from their stored events and their open reservations; each has one limit."""
    with psycopg.connect(url) as connection:
        row = connection.execute(_WRONG).fetchone()
    assert row is not None
    return int(row[0])
