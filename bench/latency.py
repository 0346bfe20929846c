"""latency: how long an event waits for its acknowledgement and its webhook at a steady rate, and one event alone."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.support import load
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.lone_events import BATCH_EVENTS, CROSSINGS, STREAMS, Alone, Pace
from bench.support.sending import create_alerts
from bench.support.stack import PostgreSQL, Stack

RATES = (100, 1_000, 10_000)  # events a second
SECONDS = 42.0  # that are measured: more than 1,000 webhooks, so that one in a thousand exists
SHORT_SECONDS = 12.0  # of a run of several parts


@dataclass(frozen=True)
class Latencies:
    """Seconds from the time at which an event was due, to its acknowledgement and to the arrival of its webhook."""

    rate: int
    ack: list[float]
    webhook: list[float]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "events_per_second": self.rate,
            "events_of_a_message": BATCH_EVENTS[self.rate],
            "crossings_per_second": CROSSINGS,
            "streams": STREAMS,
            "ack": summary(self.ack),
            "webhook": summary(self.webhook),
        }


@dataclass(frozen=True)
class Report:
    """The results by rate, and the seconds that events took of which each was sent after the answer to the last."""

    latencies: Sequence[Latencies]
    alone: Sequence[float]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"rates": [one.figures() for one in self.latencies], "alone": summary(self.alone)}

    def table(self) -> Table:
        """The figures as a table for people."""
        found = self.figures()
        rows = [
            (f"latency.{kind}", f"{one['events_per_second']:,}", one[kind])
            for kind in ("ack", "webhook")
            for one in found["rates"]
        ]
        table = Table(title="latency, ms")
        table.add_column("benchmark")
        for name in ("events/s", "p50", "p99", "p99.9", "max", "samples"):
            table.add_column(name, justify="right")
        for name, rate, one in [*rows, ("one event alone", "", found["alone"])]:
            cells = [one[share] for share in ("p50_ms", "p99_ms", "p99_9_ms", "max_ms")]
            table.add_row(
                name, rate, *("" if cell is None else f"{cell:.1f}" for cell in cells), f"{one['samples']:,}"
            )
        return table


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Percentiles in milliseconds. That of one sample in a thousand is unset when there are fewer."""
    return {
        "samples": len(seconds),
        "p50_ms": milliseconds(seconds, 0.5),
        "p99_ms": milliseconds(seconds, 0.99),
        "p99_9_ms": milliseconds(seconds, 0.999) if len(seconds) >= 1_000 else None,
        "max_ms": milliseconds(seconds, 1.0),
    }


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], seconds: float = SECONDS) -> Report:
    """Measures each rate for so many seconds, and one event alone, each with a database and processes of its own."""
    latencies = []
    for rate in RATES:
        report(f"{rate:,} events/s for {seconds:g} s")
        async with _stack(postgresql, f"bench_latency_{rate}") as stack:
            with Client() as client:
                waited = await (await client.prepare(Pace(stack.server, rate, seconds)))()
                latencies.append(Latencies(rate, waited.ack, waited.webhook))
    report("one event alone")
    async with _stack(postgresql, "bench_latency_alone") as stack:
        with Client() as client:
            alone = await (await client.prepare(Alone(stack.server)))()
    return Report(latencies, alone)


@asynccontextmanager
async def _stack(postgresql: PostgreSQL, name: str) -> AsyncIterator[Stack]:
    async with postgresql.stack(name, notifier=True) as stack:
        await create_alerts(stack.server, [*load.alerts(), load.crossing_alert()])
        yield stack
