"""neighbours: the latency of the calls of one organization while another organization floods the server."""

import asyncio
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.support import flood_data, floods
from bench.support.canary import PROBES, Canary, Waited
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.flood_calls import metadata_of
from bench.support.floods import Flood, Flooded
from bench.support.stack import PostgreSQL, Stack
from runtime.clock import SystemClock
from store.identity import keys
from store.postgres.database import Database

ROUNDS = 3  # of each kind of flood
ALONE_SECONDS = 2.0
FLOOD_SECONDS = 4.0
LEAD = 1.0  # seconds of a flood before the canary starts
# Limit of the p99 during a flood: the p99 alone, times this factor, plus so many ms.
GOAL_FACTOR, GOAL_EXTRA = 2.0, 20.0
# One organization has 1,000 watchers; without the settings it gets 100.
SETTINGS = {"TIDEMARK_ORGANIZATION_WATCHERS": "1000", "TIDEMARK_MAX_WATCHERS": "2100"}


@dataclass(frozen=True)
class Round:
    """The latencies of the canary before a flood (alone) and during it (beside), on the same data."""

    alone: Waited
    beside: Waited
    flooded: Flooded


@dataclass(frozen=True)
class Case:
    """Some floods of one kind, each after a time without it: what else the machine does affects both."""

    kind: str
    rounds: Sequence[Round]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        beside = [one.beside for one in self.rounds]
        codes: Counter[str] = Counter()
        for one in self.rounds:
            codes.update(one.flooded.codes)
        failures = [failure for one in beside for failure in one.failed]
        return {
            "kind": self.kind,
            "probes": {probe: self._probe(probe) for probe in PROBES},
            "canary_failed": len(failures),
            "canary_failures": sorted(set(failures)),
            "flood": dict(codes),
            "loop_block_alone_ms": max(milliseconds(one.alone.health, 1.0) for one in self.rounds),
            "loop_block_beside_ms": max(milliseconds(one.health, 1.0) for one in beside),
            "loop_p99_beside_ms": statistics.median(milliseconds(one.health, 0.99) for one in beside),
        }

    def _probe(self, probe: str) -> dict[str, Any]:
        """p50 and p99 are medians of those of the rounds; ratio: the median of p99 beside ÷ alone of each round."""
        alone = [one.alone.seconds[probe] for one in self.rounds]
        beside = [one.beside.seconds[probe] for one in self.rounds]
        p99 = [(milliseconds(one, 0.99), milliseconds(other, 0.99)) for one, other in zip(alone, beside, strict=True)]
        p99_alone = statistics.median(one for one, _ in p99)
        return {
            "alone_p50_ms": statistics.median(milliseconds(one, 0.5) for one in alone),
            "alone_p99_ms": p99_alone,
            "beside_p50_ms": statistics.median(milliseconds(one, 0.5) for one in beside),
            "beside_p99_ms": statistics.median(other for _, other in p99),
            "beside_max_ms": max(milliseconds(one, 1.0) for one in beside),
            "ratio": round(statistics.median(other / one for one, other in p99), 2),
            "goal_p99_ms": round(GOAL_FACTOR * p99_alone + GOAL_EXTRA, 2),
            "samples": sum(map(len, beside)),
        }


@dataclass(frozen=True)
class Report:
    """The results of all floods."""

    cases: Sequence[Case]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"cases": [case.figures() for case in self.cases]}

    def table(self) -> Table:
        """The figures as a table for people."""
        table = Table(title="another organization's calls beside a flood, ms")
        table.add_column("flood, call", no_wrap=True)
        for name in ("alone", "p99", "beside", "p99", "max", "goal", "failed", "block"):
            table.add_column(name, justify="right", no_wrap=True)
        for case in self.cases:
            figures = case.figures()
            answered = ", ".join(f"{code} {count:,}" for code, count in sorted(figures["flood"].items()))
            table.add_row(f"{case.kind} ({answered})", style="bold")
            for number, probe in enumerate(PROBES):
                one = figures["probes"][probe]
                names = ("alone_p50_ms", "alone_p99_ms", "beside_p50_ms", "beside_p99_ms", "beside_max_ms")
                last = (str(figures["canary_failed"]), f"{figures['loop_block_beside_ms']:,.0f}")
                table.add_row(
                    f"  {probe}",
                    *(f"{one[name]:,.0f}" for name in names),
                    f"{one['goal_p99_ms']:,.0f}",
                    *(("", "") if number else last),
                    end_section=number == len(PROBES) - 1,
                )
        return table


async def measure(
    postgresql: PostgreSQL,
    report: Callable[[str], None],
    kinds: Sequence[str] = tuple(floods.KINDS),
    rounds: int = ROUNDS,
) -> Report:
    """Measures every kind of flood on one server and one database, in about five minutes."""
    cases = []
    async with postgresql.stack("bench_neighbours", settings=SETTINGS) as stack:
        quiet = await _key(stack, "quiet")
        noisy = [await _key(stack, f"noisy-{number}") for number in range(floods.ORGANIZATIONS)]
        grouped_alert = await _prepare(postgresql, stack, kinds, noisy[0])
        with Client() as flooding, Client() as calling:
            for kind in kinds:
                keys = noisy if kind == "organizations" else noisy[:1]
                measured = []
                if kind == "poison":
                    await flood_data.refuse_poison(stack.url)
                for number in range(rounds):
                    flood = await flooding.prepare(
                        Flood(stack.server, keys, kind, LEAD + FLOOD_SECONDS, number, grouped_alert)
                    )
                    await floods.settled(stack.server, keys)
                    name = f"{kind}-{number}"
                    canary = await calling.prepare(Canary(stack.server, quiet, f"{name}-alone", ALONE_SECONDS))
                    alone = await canary()
                    canary = await calling.prepare(
                        Canary(stack.server, quiet, f"{name}-beside", FLOOD_SECONDS - 0.5, LEAD)
                    )
                    beside, flooded = await asyncio.gather(canary(), flood())
                    measured.append(Round(alone, beside, flooded))
                cases.append(Case(kind, measured))
                event = cases[-1].figures()["probes"]["event"]
                report(
                    f"{kind}: an event's p99 {event['alone_p99_ms']:,} ms, {event['beside_p99_ms']:,} beside;"
                    f" the goal is {event['goal_p99_ms']:,}"
                )
    return Report(cases)


async def _prepare(postgresql: PostgreSQL, stack: Stack, kinds: Sequence[str], key: str) -> str:
    """Makes the data that these kinds of flood need; returns the id of an alert that has a gauge for each group."""
    grouped_alert = ""
    if {"crossings", "watchers", "lists"} & set(kinds):
        await flood_data.create_crossing_alert(stack.server, metadata_of(key))
    if {"groups", "lists"} & set(kinds):
        grouped_alert = await flood_data.make_groups(stack.server, metadata_of(key))
    if "lists" in kinds:
        await flood_data.make_lists(postgresql, stack, metadata_of(key))
    return grouped_alert


async def _key(stack: Stack, name: str) -> str:
    """The key of a new organization."""
    database = Database(stack.url, pool_size=1)
    try:
        async with database.transaction() as connection:
            return (await keys.create_key(connection, name, SystemClock().now())).key
    finally:
        await database.close()
