"""One visit of a database: a server starts, usage is sent, and the CPU of each node is read before and after.

Only one server runs at a time: one that is idle still asks its database for work, and databases share nodes.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.nodes.places import Place
from bench.support import cpu, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.full_speed import Send, Sent
from bench.support.load import DENSE, SPARSE, Kind, Load
from bench.support.lone_events import Alone, Pace
from bench.support.sending import NotCounted, create_alerts
from bench.support.stack import PostgreSQL
from tests.support.processes.programs import Program

ALONE, PACED = "alone", "paced"
ROWS = (DENSE.name, SPARSE.name, ALONE, PACED)
_KINDS = {kind.name: kind for kind in (DENSE, SPARSE)}

WARM_UP_EVENTS = 30_000  # of a server that has just started
ALONE_EVENTS = 300
ALONE_WARM_UP = 50
PACED_RATE = 100  # lone events a second, of which a quarter reach a threshold
PACED_SECONDS = 8.0
PATIENCE = 30.0  # seconds for the notifier to empty the outbox


@dataclass(frozen=True)
class Reading:
    """One row of one visit. events: that were sent. rate: events a second, for rows at full speed.

    nodes, servers: microseconds of CPU of one event, by node, and of all servers together. milliseconds: by name of
    the latency, for rows with latencies.
    """

    events: int
    nodes: Mapping[str, float]
    servers: float
    rate: float | None = None
    milliseconds: Mapping[str, float] | None = None

    @property
    def database(self) -> float:
        """Microseconds of all nodes."""
        return sum(self.nodes.values())

    @property
    def busiest(self) -> float:
        """Microseconds of the node that has most to do: the first to have no more, on machines of the same size."""
        return max(self.nodes.values())


class Visit:
    """A visit of one database. number: of the round. programs: the servers that run now."""

    def __init__(self, postgresql: PostgreSQL, place: Place, number: int, clients: Sequence[Client]) -> None:
        self._postgresql = postgresql
        self._place = place
        self._number = number
        self._clients = clients
        self._programs: list[Program] = []

    async def measure(self, rows: Sequence[str]) -> dict[str, Reading]:
        """Starts a server for each client, and measures the rows of these names."""
        found = {}
        async with contextlib.AsyncExitStack() as exits:
            for index in range(len(self._clients)):
                log = f"{self._place.workers}-server-{self._number}-{index}"
                self._programs.append(await self._postgresql.server(exits, self._place.url, log=log))
            if not self._number:
                await create_alerts(self._servers[0], [*load.alerts(), load.crossing_alert()])
                await self._first_events()
            await _together(await self._prepared(SPARSE, "warm", WARM_UP_EVENTS))
            await asyncio.to_thread(self._place.checkpoint)
            for name in rows:
                if name in _KINDS:
                    found[name] = await self._full_speed(_KINDS[name])
                elif name == ALONE:
                    found[name] = await self._alone()
                else:
                    found[name] = await self._paced(exits)
        return found

    @property
    def _servers(self) -> list[str]:
        return [program.address.server for program in self._programs]

    async def _prepared(self, kind: Kind, name: str, events: int) -> list[Callable[[], Awaitable[Sent]]]:
        """Lets each client prepare its part of the events, for a server of its own. All share the customers."""
        runs = []
        for index, (client, server) in enumerate(zip(self._clients, self._servers, strict=True)):
            part = Load(f"{name}-{self._number}-{index}", kind.gauges, events // len(self._clients), load.now())
            runs.append(await client.prepare(Send(Access(server), part, kind.gauges)))
        return runs

    async def _first_events(self) -> None:
        """Makes all gauges."""
        await (await self._clients[0].prepare(Send(Access(self._servers[0]), None, SPARSE.gauges)))()

    async def _full_speed(self, kind: Kind) -> Reading:
        runs = await self._prepared(kind, kind.name, kind.events)
        meter = _Meter(self._place, self._programs)
        seconds, events = await _together(runs)
        if events != kind.events:
            raise NotCounted(f"{events} events were accepted, {kind.events} were sent")
        return meter.reading(events, rate=events / seconds)

    async def _alone(self) -> Reading:
        job = Alone(self._servers[0], ALONE_EVENTS, ALONE_WARM_UP, f"alone-{self._number}")
        run = await self._clients[0].prepare(job)
        meter = _Meter(self._place, self._programs)
        took = await run()
        latencies = {"p50": milliseconds(took, 0.5), "p99": milliseconds(took, 0.99)}
        return meter.reading(ALONE_WARM_UP + ALONE_EVENTS, milliseconds=latencies)

    async def _paced(self, exits: contextlib.AsyncExitStack) -> Reading:
        log = f"{self._place.workers}-notifier-{self._number}"
        await self._postgresql.notifier(exits, self._place.url, {}, log=log)
        # The notifications of the other rows go to no endpoint: the one of the measurement does not exist yet.
        async with asyncio.timeout(PATIENCE):
            while self._place.value("SELECT count(*) FROM outbox"):  # noqa: ASYNC110 (the notifier is another process)
                await asyncio.sleep(0.1)
        job = Pace(self._servers[0], PACED_RATE, PACED_SECONDS, f"paced-{self._number}")
        run = await self._clients[0].prepare(job)
        meter = _Meter(self._place, self._programs)
        found = await run()
        latencies = {
            f"{kind} {name}": milliseconds(times, share)
            for kind, times in (("acknowledgement", found.ack), ("webhook", found.webhook))
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }
        return meter.reading(len(found.ack), milliseconds=latencies)


class _Meter:
    """The CPU of the nodes and servers from now on."""

    def __init__(self, place: Place, programs: Sequence[Program]) -> None:
        self._place = place
        self._servers = [program.pid for program in programs]
        self._before = place.cpu(), cpu.seconds(*self._servers)

    def reading(
        self, events: int, *, rate: float | None = None, milliseconds: Mapping[str, float] | None = None
    ) -> Reading:
        """What so many events have used."""
        nodes, servers = self._before
        used = {name: 1e6 * (now - nodes[name]) / events for name, now in self._place.cpu().items()}
        return Reading(events, used, 1e6 * (cpu.seconds(*self._servers) - servers) / events, rate, milliseconds)


async def _together(runs: Sequence[Callable[[], Awaitable[Sent]]]) -> tuple[float, int]:
    """Runs all at the same time; returns the seconds until the last has ended, and the accepted events."""
    started = time.perf_counter()
    sent = await asyncio.gather(*(run() for run in runs))
    return time.perf_counter() - started, sum(one.accepted for one in sent)
