"""The figures of the benchmarks: tables for people, and JSON for comparisons."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.balances import BALANCES
from bench.balances import Report as BalancesReport
from bench.ingest import Report
from bench.latency import Latencies
from bench.notifier import Report as NotifierReport

RESULTS = Path(__file__).resolve().parent / "results"
# What a spike of the same design reached, with neither alerts nor checks: shares of a raw COPY's rate.
GOALS = {"dense": 0.55, "sparse": 0.25}


def show(
    console: Console,
    ingest: Sequence[Report],
    latency: Sequence[Latencies],
    notifier: NotifierReport | None,
    balances: BalancesReport | None,
) -> None:
    """Prints a table for each measured part."""
    if ingest:
        console.print(_ingest_table(ingest))
    if latency:
        console.print(_latency_table(latency))
    if notifier is not None:
        console.print(_notifier_table(notifier))
    if balances is not None:
        console.print(_balances_table(balances))
        console.print(_timers_table(balances))


def _ingest_table(reports: Sequence[Report]) -> Table:
    table = Table(title="ingest, events/s")
    table.add_column("benchmark", no_wrap=True)
    for name in ("server", "COPY", "ratio", "goal", "CPU server", "CPU database"):
        table.add_column(name, justify="right", no_wrap=True)
    for report in reports:
        figures = report.figures()
        table.add_row(
            f"ingest.{report.kind.name}",
            f"{figures['events_per_second']:,.0f}",
            f"{figures['copy_limit_events_per_second']:,.0f}",
            f"{figures['ratio']:.2f}",
            f"{GOALS[report.kind.name]:.2f}",
            _cpu(figures["server_cpu_us"]),
            _cpu(figures["database_cpu_us"]),
        )
    return table


def _cpu(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:.1f} µs"


def _latency_table(latencies: Sequence[Latencies]) -> Table:
    table = Table(title="latency, ms")
    table.add_column("benchmark")
    for name in ("events/s", "p50", "p99", "max", "samples"):
        table.add_column(name, justify="right")
    for kind in ("ack", "webhook"):
        for one in latencies:
            summary = one.figures()[kind]
            table.add_row(
                f"latency.{kind}",
                f"{one.rate:,}",
                *(f"{summary[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")),
                f"{summary['samples']:,}",
            )
    return table


def _notifier_table(report: NotifierReport) -> Table:
    figures = report.figures()
    resident = figures["resident_mib"]
    table = Table(title="notifier")
    table.add_column("figure")
    for name in ("measured", "limit, same run", "goal"):
        table.add_column(name, justify="right")
    for row in (
        ("deliveries/s", f"{figures['deliveries_per_second']:,}", f"{figures['bare_aiohttp_per_second']:,}", ""),
        ("÷ a bare aiohttp loop", f"{figures['ratio']:.2f}", "1", "≥ 0.5"),
        *(
            (f"the same jobs in {name}, /s", f"{rate:,}", "", "")
            for name, rate in figures["rivals_per_second"].items()
        ),
        ("commit → arrival, idle, p50", f"{figures['idle_p50_ms']:.1f} ms", "", "≤ 20 ms"),
        ("commit → arrival, idle, p99", f"{figures['idle_p99_ms']:.1f} ms", "", "≤ 100 ms"),
        (
            "healthy p99 beside one that hangs",
            f"{figures['healthy_p99_beside_hanging_ms']:.1f} ms",
            f"{figures['healthy_p99_alone_ms']:.1f} ms",
            "",
        ),
        ("÷ without it", f"{figures['healthy_p99_ratio']:.2f}", "1", "≤ 1.5"),
        (
            f"memory with {figures['memory_in_flight']} in flight",
            "unknown" if resident is None else f"{resident:.0f} MiB",
            "",
            "≤ 150 MB",
        ),
    ):
        table.add_row(*row)
    return table


def _balances_table(report: BalancesReport) -> Table:
    figures = report.figures()
    table = Table(title=f"usage of a customer with {BALANCES:,} balances and seats")
    # Wide enough for what they hold: a narrow terminal breaks the headings, and drops nothing.
    for name, width in (
        ("seats", 6),
        ("events/s", 8),
        ("CPU", 7),
        ("spread: events/s", 8),
        ("CPU", 7),
        ("one event p50", 8),
        ("p99", 8),
    ):
        table.add_column(name, justify="right", min_width=width)
    for one in figures["customers"]:
        table.add_row(
            f"{one['seats']:,}",
            f"{one['events_per_second']:,}",
            _cpu(one["cpu_us"]),
            f"{one['spread_events_per_second']:,}",
            _cpu(one["spread_cpu_us"]),
            f"{one['single_event_p50_ms']:.1f} ms",
            f"{one['single_event_p99_ms']:.1f} ms",
        )
    table.caption = (
        f"most seats ÷ one: time {figures['time_of_most_seats_to_one']:.2f}, CPU"
        f" {figures['cpu_of_most_seats_to_one']:.2f}; goal ≤ {figures['goal']}"
    )
    return table


def _timers_table(report: BalancesReport) -> Table:
    figures = report.timers.figures()
    table = Table(title="timers, ms")
    table.add_column("figure")
    for name in ("p50", "p99"):
        table.add_column(name, justify="right")
    for words, name in (
        ("a sweep for due wallets, no wallet due later", "sweep_without"),
        (f"the same, {figures['future_timers']:,} due next year", "sweep_with"),
        (f"late, {figures['due']:,} due within {figures['due_in_seconds']:g} s", "late"),
    ):
        table.add_row(words, f"{figures[f'{name}_p50_ms']:.1f}", f"{figures[f'{name}_p99_ms']:.1f}")
    return table


def write(
    name: str,
    about: dict[str, Any],
    ingest: Sequence[Report],
    latency: Sequence[Latencies],
    notifier: NotifierReport | None,
    balances: BalancesReport | None,
) -> Path:
    """Writes all figures to `results/NAME.json`; returns the path."""
    results = dict(about)
    if ingest:
        results["ingest"] = {report.kind.name: report.figures() for report in ingest}
    if latency:
        results["latency"] = [one.figures() for one in latency]
    if notifier is not None:
        results["notifier"] = notifier.figures()
    if balances is not None:
        results["balances"] = balances.figures()
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    return path
