"""client: usage through the writers of the clients, beside the benchmark's own client."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from rich.table import Table

from bench import golang, node_client
from bench.support import load
from bench.support.access import Access
from bench.support.client import Client, Job
from bench.support.full_speed import STREAMS, Send, Sent
from bench.support.load import DENSE, Load
from bench.support.sending import NotCounted, create_alerts
from bench.support.stack import PostgreSQL, Stack
from generated.tidemark.v1.usage_pb2 import UsageEvent, UsageOutcome
from tidemark_client import AsyncClient, WriterOptions
from tidemark_client import Client as SyncClient

OWN = "the benchmark's own client"
ASYNCIO = "AsyncUsageWriter"
THREADS = "UsageWriter"
GO = "UsageWriter, Go"
NODE = "UsageWriter, Node"
MILLION = "million"
ROWS = ("writers", MILLION)

ROUNDS = 4
EVENTS = DENSE.events // 2  # of a round
WARM_UP_EVENTS = 20_000
MILLION_EVENTS = 1_000_000
PORTION = 100_000  # of the million: messages that the client holds at a time
GOAL = 0.9


@dataclass
class Write(Job[Sent]):
    """Sends events with a writer of the Python client. way: which. portions: of events, one after the other."""

    access: Access
    way: str
    portions: Sequence[Load]
    _events: list[list[UsageEvent]] = field(default_factory=list)
    _transitions: int = 0

    async def prepare(self) -> None:
        """Makes the messages of one portion at least; the encoding is a part of what is measured."""
        if len(self.portions) == 1:
            self._events = [self._made(self.portions[0])]

    async def run(self) -> Sent:
        """Sends all events; the measured time ends with the last acknowledgement."""
        if self.way == THREADS:
            return await asyncio.to_thread(self._in_threads)
        seconds, acknowledged = 0.0, 0
        async with (
            AsyncClient(self.access.server, api_key=self.access.key or None) as client,
            client.usage_writer(WriterOptions(on_outcome=self._note)) as writer,
        ):
            for events in self._events or map(self._made, self.portions):
                started = time.perf_counter()
                await writer.send_all(events)
                await writer.flush()
                seconds += time.perf_counter() - started
            acknowledged = writer.counts.acknowledged - writer.counts.duplicates
        return Sent(seconds, acknowledged, self._transitions)

    def _in_threads(self) -> Sent:
        with (
            SyncClient(self.access.server, api_key=self.access.key or None) as client,
            client.usage_writer(WriterOptions(on_outcome=self._note)) as writer,
        ):
            started = time.perf_counter()
            writer.send_all(self._events[0])
            writer.flush()
            seconds = time.perf_counter() - started
            return Sent(seconds, writer.counts.acknowledged - writer.counts.duplicates, self._transitions)

    def _note(self, outcome: UsageOutcome) -> None:
        self._transitions += len(outcome.transitions) + outcome.omitted.transition_count

    def _made(self, portion: Load) -> list[UsageEvent]:
        return [load.message(event) for event in portion.make()]


@dataclass(frozen=True)
class Rate:
    """Events a second, and the microseconds of CPU that the client's process took for one event."""

    events: float
    cpu: float


@dataclass
class Timed(Job[tuple[Sent, float]]):
    """A job, with the seconds of CPU of its process."""

    job: Job[Sent]

    async def prepare(self) -> None:
        """Prepares the job."""
        await self.job.prepare()

    async def run(self) -> tuple[Sent, float]:
        """Runs the job."""
        before = time.process_time()
        sent = await self.job.run()
        return sent, time.process_time() - before


@dataclass(frozen=True)
class Report:
    """Each way in each round. million: the million events, unset where they were not measured."""

    rounds: Sequence[dict[str, Rate]]
    million: Rate | None

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results: medians, and ratios to the own client in the same round."""
        ways = list(self.rounds[0]) if self.rounds else []
        medians = {way: round(statistics.median(one[way].events for one in self.rounds)) for way in ways}
        cpu = {way: round(statistics.median(one[way].cpu for one in self.rounds), 2) for way in ways}
        ratios = {
            way: round(statistics.median(one[way].events / one[OWN].events for one in self.rounds), 3)
            for way in ways
            if way != OWN
        }
        return {
            "events_of_a_round": EVENTS,
            "gauges": DENSE.gauges,
            "events_per_second": medians,
            "ratio": ratios,
            "client_cpu_us": cpu,
            "million_events_per_second": None if self.million is None else round(self.million.events),
            "rounds": [{way: round(rate.events) for way, rate in one.items()} for one in self.rounds],
        }

    def table(self) -> Table:
        """The same for people."""
        figures = self.figures()
        table = Table(title="usage of one process, events/s")
        for name in ("way", "events/s", "÷ own", "goal", "CPU client"):
            table.add_column(name, justify="left" if name == "way" else "right")
        for way, rate in figures["events_per_second"].items():
            ratio = figures["ratio"].get(way)
            shares = ("1", "") if ratio is None else (f"{ratio:.2f}", f"≥ {GOAL}")
            table.add_row(way, f"{rate:,}", *shares, f"{figures['client_cpu_us'][way]:.1f} µs")
        if self.million is not None:
            name = f"{ASYNCIO}, {MILLION_EVENTS:,} events"
            table.add_row(name, f"{self.million.events:,.0f}", "", "", f"{self.million.cpu:.1f} µs")
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], only: Sequence[str]) -> Report:
    """Measures the rows."""
    rounds: list[dict[str, Rate]] = []
    million = None
    async with postgresql.stack("bench_client") as stack:
        with Client() as client:
            await create_alerts(stack.server, load.alerts())
            await _rate(client, Timed(Send(Access(stack.server), None, DENSE.gauges)), DENSE.gauges)
            if not only or "writers" in only:
                program = golang.built()
                every = [OWN, ASYNCIO, THREADS]
                every += [GO] if program is not None else []
                every += [NODE] if node_client.is_installed() else []
                for number in range(ROUNDS + 1):  # the first warms everything up and does not count
                    # In rotation, so that no way always comes first.
                    ways = [every[(at + number) % len(every)] for at in range(len(every))]
                    rates = {way: await _round(client, stack, way, number, program) for way in ways}
                    if number:
                        rounds.append(rates)
                        report(", ".join(f"{way} {rate.events:,.0f}/s" for way, rate in rates.items()))
            if MILLION in only or not only:
                million = await _million(client, stack)
                report(f"{MILLION_EVENTS:,} events: {million.events:,.0f}/s")
    return Report(rounds, million)


async def _round(client: Client, stack: Stack, way: str, number: int, program: Path | None) -> Rate:
    name = way.replace("UsageWriter", "").strip(", ") or "threads"
    events = Load(f"{name[:8]}-{number}", DENSE.gauges, EVENTS if number else WARM_UP_EVENTS, load.now())
    access = Access(stack.server)
    if way == GO and program is not None:
        return await _rate(client, golang.WriteInGo(access, program, events), events.events)
    streams = STREAMS * max(1, len(stack.worker_pids))
    if way == NODE:
        return await _rate(client, node_client.WriteInNode(access, events), events.events)
    job = Send(access, events, events.gauges, streams) if way == OWN else Write(access, way, [events])
    return await _rate(client, Timed(job), events.events)


async def _million(client: Client, stack: Stack) -> Rate:
    portions = [
        Load(f"million-{number}", DENSE.gauges, PORTION, load.now()) for number in range(MILLION_EVENTS // PORTION)
    ]
    job = Write(Access(stack.server), ASYNCIO, portions)
    rate = await _rate(client, Timed(job), MILLION_EVENTS)
    with psycopg.connect(stack.url) as connection:
        row = connection.execute("SELECT count(*) FROM event WHERE event_id LIKE 'million-%'").fetchone()
    if row != (MILLION_EVENTS,):
        raise NotCounted(f"{row} of {MILLION_EVENTS} events are stored")
    return rate


async def _rate(client: Client, job: Job[tuple[Sent, float]], events: int) -> Rate:
    sent, cpu = await (await client.prepare(job))()
    if sent.accepted != events:
        raise NotCounted(f"{sent.accepted} events were accepted, {events} were sent")
    return Rate(events / sent.seconds, 1e6 * cpu / events)
