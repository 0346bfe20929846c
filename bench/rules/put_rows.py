"""Facts that many callers put at the same time."""

import statistics

from bench.rules import requests
from bench.rules.changes import Changed, Changes, Kind
from bench.rules.creation_rows import CALLERS
from bench.rules.figures import Figure, Goal
from bench.rules.run import Run
from bench.rules.servers import Data
from bench.support.figures import milliseconds

KINDS = (Kind.CUSTOMER, Kind.SUBSCRIPTION, Kind.LIMIT)
GOAL = Goal(600)
FIRST = 100_003  # between the numbers of the first calls of two rounds; a customer gets another plan in each


async def puts(run: Run) -> list[Figure]:
    """Customers, subscriptions and limits put a second, beside alerts of single customers and one on limits."""
    changed: dict[Kind, list[Changed]] = {kind: [] for kind in KINDS}
    data = Data(run.scale.active, alerts=run.scale.created, more=(requests.of_limits(),))
    async with run.server("puts", data) as server:
        await server.meet_customers()
        for number in range(run.scale.rounds):
            for kind in KINDS:
                changes = Changes(server.address, kind, CALLERS, run.scale.active, FIRST * number, run.scale.seconds)
                changed[kind].append(await server.change(changes))
    return [_figure(kind, of_kind) for kind, of_kind in changed.items()]


def _figure(kind: Kind, changed: list[Changed]) -> Figure:
    details = {
        "rates": [round(one.rate, 1) for one in changed],
        "call_p50_ms": [milliseconds(one.waits, 0.5) for one in changed if one.waits],
        "call_p99_ms": [milliseconds(one.waits, 0.99) for one in changed if one.waits],
        "failed": [one.failed for one in changed],
    }
    rate = statistics.median(one.rate for one in changed)
    return Figure("puts", f"{kind} a second, {CALLERS} callers", rate, "/s", GOAL, details)
