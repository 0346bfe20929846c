"""Facts that many callers put at the same time."""

from bench.rules import requests
from bench.rules.changes import Changed, Changes, Kind, change_figures
from bench.rules.creation_rows import CALLERS
from bench.rules.run import Run
from bench.rules.servers import Data
from bench.support.goals import Figure, Goal

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
    return [
        figure
        for kind, of_kind in changed.items()
        for figure in change_figures("puts", f"{kind} a second, {CALLERS} callers", of_kind, GOAL)
    ]
