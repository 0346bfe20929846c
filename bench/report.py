"""The figures of the benchmarks as tables for people."""

from collections.abc import Sequence

from rich.table import Table

from bench.balances import BALANCES
from bench.balances import Report as BalancesReport
from bench.ingest import Report
from bench.notifier import Report as NotifierReport

GOALS = {"dense": 0.6, "sparse": 0.4}  # shares of a raw COPY's rate


def ingest_table(reports: Sequence[Report]) -> Table:
    """Events a second and CPU of each kind of traffic."""
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


def notifier_table(report: NotifierReport) -> Table:
    """The figures of a notifier, with their limits and goals."""
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


def balances_table(report: BalancesReport) -> Table:
    """The cost of usage that draws on many balances."""
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


def timers_table(report: BalancesReport) -> Table:
    """How late timers run, and what a search for them takes."""
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


def markdown(table: Table) -> str:
    """A table as Markdown, for docs/performance.md."""
    columns = [(str(column.header), column.justify, [*column.cells]) for column in table.columns]
    lines = [
        [header for header, _, _ in columns],
        ["---:" if justify == "right" else "---" for _, justify, _ in columns],
    ]
    lines += [[str(cell) for cell in row] for row in zip(*(cells for _, _, cells in columns), strict=True)]
    caption = f"\n\n{table.caption}" if table.caption else ""
    return f"{table.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"{caption}\n"
