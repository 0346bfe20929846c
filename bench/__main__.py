"""`python -m bench [PART]` measures, prints tables, and writes bench/results/."""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import uvloop
from rich.console import Console

from bench import balances, ingest, latency, neighbours, notifier, report, soak, sustained
from bench.rules import part as rules
from bench.rules.scale import Scale
from bench.support import floods, load, machine
from bench.support.stack import PostgreSQL
from bench.views import report as views

PARTS = ("ingest", "latency", "notifier", "balances", "neighbours", "rules", "views", "soak", "sustained")
SOAK_MINUTES = 10.0
# The rows that `--only` can name, by part.
ROWS: Mapping[str | None, Sequence[str]] = {
    "rules": tuple(rules.ROWS),
    "neighbours": tuple(floods.KINDS),
    "views": (*views.METHODS, views.WATCHERS, views.NEW_METRICS),
}


def main() -> None:
    """Measures one part, or without an argument the two of the hot path, in less than three minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Tidemark's benchmarks.")
    parser.add_argument(
        "part", nargs="?", choices=PARTS, help="measure only this part, and do not change latest.json"
    )
    parser.add_argument("minutes", nargs="?", type=float, default=SOAK_MINUTES, help="duration of a soak")
    parser.add_argument("--workers", type=int, default=1, help="of ingest: processes of the server")
    parser.add_argument("--python", action="store_true", help="of ingest: the server decodes usage in Python")
    parser.add_argument("--scale", type=float, default=1.0, help="of rules: multiplies the alerts and customers")
    parser.add_argument("--alerts", type=int, help="of rules: alerts of the large database of the row size")
    parser.add_argument("--only", action="append", default=[], help="of rules, neighbours and views: only this row")
    parser.add_argument("--events", type=int, default=sustained.EVENTS, help="of sustained: events that are sent")
    parser.add_argument(
        "--seconds", type=float, default=sustained.SECONDS, help="of sustained: ends early after this time"
    )
    parser.add_argument("--stored", type=int, default=0, help="of sustained: events in the table before")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(ROWS.get(arguments.part, ())):
        parser.error(f"{arguments.part or 'it'} has no row {', '.join(sorted(unknown))}")
    uvloop.run(_measure(Console(highlight=False), arguments))


async def _measure(console: Console, arguments: argparse.Namespace) -> None:
    part, minutes = arguments.part, arguments.minutes
    started = time.monotonic()
    busy = machine.load_average()
    postgresql = PostgreSQL()
    about: dict[str, Any] = {
        "time": load.now().isoformat(timespec="seconds"),
        "machine": machine.facts(postgresql.folder),
        "versions": machine.versions(),
        "postgresql": postgresql.settings(),
        "load_average_before": busy,
    }
    rates: list[ingest.Report] = []
    if part in (None, "ingest"):
        for kind in (ingest.DENSE, ingest.SPARSE):
            console.print(f"ingest.{kind.name}: {kind.gauges:,} gauges", style="bold")
            rates.append(
                await ingest.measure(
                    postgresql,
                    kind,
                    lambda line: console.print(f"  {line}"),
                    workers=arguments.workers,
                    native=not arguments.python,
                )
            )
    latencies: list[latency.Latencies] = []
    if part in (None, "latency"):
        for rate in latency.RATES:
            console.print(f"latency: {rate:,} events/s for {latency.SECONDS:g} s", style="bold")
            latencies.append(await latency.measure(postgresql, rate))
    webhooks: notifier.Report | None = None
    if part == "notifier":
        console.print("notifier: webhooks to receivers on this machine", style="bold")
        webhooks = await notifier.measure(postgresql, lambda line: console.print(f"  {line}"))
    if part == "soak":
        console.print(f"soak: {minutes:g} minutes of steady traffic", style="bold")
        soaked = await soak.measure(postgresql, minutes, lambda line: console.print(f"  {line}"))
        about["soak"] = soaked.figures()
        console.print(soaked.table())
    if part == "sustained":
        console.print(f"sustained: {arguments.events:,} events with random ids", style="bold")
        kept_up = await sustained.measure(
            postgresql,
            lambda line: console.print(f"  {line}"),
            events=arguments.events,
            seconds=arguments.seconds,
            stored=arguments.stored,
        )
        about["sustained"] = kept_up.figures()
        console.print(kept_up.table())
    if part == "neighbours":
        console.print("neighbours: the calls of one organization during the flood of another", style="bold")
        kinds = arguments.only or ROWS["neighbours"]
        beside = await neighbours.measure(postgresql, lambda line: console.print(f"  {line}"), kinds)
        about["neighbours"] = beside.figures()
        console.print(beside.table())
    if part == "views":
        console.print("views: lists and views by the number of rows that they choose from", style="bold")
        seen = await views.measure_all(postgresql, lambda line: console.print(f"  {line}"), arguments.only)
        about["views"] = seen.figures()
        console.print(seen.table())
    if part == "rules":
        console.print(f"rules: many alerts and changes of rules, scale {arguments.scale:g}", style="bold")
        of_rules = await rules.measure(
            postgresql,
            lambda line: console.print(f"  {line}"),
            Scale(arguments.scale, arguments.alerts),
            arguments.only,
        )
        about["rules"] = of_rules.figures()
        console.print(of_rules.table())
    drawn: balances.Report | None = None
    if part == "balances":
        console.print("balances: usage that draws on balances, and timers", style="bold")
        drawn = await balances.measure(postgresql, lambda line: console.print(f"  {line}"))
    about["seconds"] = round(time.monotonic() - started)
    report.show(console, rates, latencies, webhooks, drawn)
    path = report.write("latest" if part is None else part, about, rates, latencies, webhooks, drawn)
    console.print(f"{about['seconds']} s; written to {path.relative_to(machine.ROOT)}", style="dim")


if __name__ == "__main__":
    main()
