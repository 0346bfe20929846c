"""nodes: what an event costs on each node of a database, and what a cluster costs beside one PostgreSQL.

Each round visits all databases in turn, so that other work of the machine affects all of them. CPU by node is what an
event costs there, wherever the node stands. The node that has most to do decides how many events a second the whole
takes.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from bench.nodes.places import Named, Place, places
from bench.nodes.report import Report
from bench.nodes.visit import ROWS, Reading, Visit
from bench.support.client import Client
from bench.support.sending import NotCounted
from bench.support.stack import PostgreSQL

ROUNDS = 3


async def measure(
    postgresql: PostgreSQL,
    report: Callable[[str], None],
    named: Named,
    servers: int = 1,
    number_of_rounds: int = ROUNDS,
    only: Sequence[str] = (),
) -> Report:
    """Measures the rows of these names (none: all of them) in each database, with so many servers at the same time.

    Raises CannotMeasure if a database that was named cannot be used, and NotCounted if it does not count each event.
    """
    rows = [name for name in ROWS if not only or name in only]
    rounds: list[dict[str, dict[str, Reading]]] = []
    async with places(postgresql, named) as found:
        with contextlib.ExitStack() as exits:
            clients = [exits.enter_context(Client()) for _ in range(servers)]
            for number in range(number_of_rounds):
                visits = {}
                for place in found:
                    visits[place.name] = await Visit(postgresql, place, number, clients).measure(rows)
                    for name, one in visits[place.name].items():
                        report(f"{place.name}, {name}: {_said(one)}")
                rounds.append(visits)
        for place in found:
            await asyncio.to_thread(_verify, place)
        settings = {place.name: place.settings for place in found}
        return Report({place.name: place.workers for place in found}, servers, rounds, settings)


def _said(one: Reading) -> str:
    nodes = " + ".join(f"{used:.1f}" for used in one.nodes.values())
    latencies = "".join(f", {name} {value:.1f} ms" for name, value in (one.milliseconds or {}).items())
    rate = "" if one.rate is None else f", {one.rate:,.0f} events/s"
    return f"nodes {nodes} µs, servers {one.servers:.1f} µs{rate}{latencies}"


def _verify(place: Place) -> None:
    """Raises NotCounted unless the gauges have exactly what is stored."""
    gauges = place.value("SELECT sum(value) FROM gauge")
    events = place.value("SELECT sum(quantity) FROM event")
    if gauges != events:
        raise NotCounted(f"{place.name}: the gauges have {gauges}, the events {events}")
