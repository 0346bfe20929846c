"""`python -m bench [PART]` measures, prints tables, and writes bench/results/; its part `plots` draws these."""

import argparse
import sys
import time
from typing import Any

import uvloop
from rich.console import Console

from bench import report, sustained
from bench.nodes import part as nodes
from bench.parts import DEFAULT, PARTS
from bench.plots import drawing
from bench.support import load, machine, results
from bench.support.stack import PostgreSQL

PLOTS = "plots"
SOAK_MINUTES = 10.0
FILE_WIDTH = 160  # characters of a line when the output is no terminal


def main() -> None:
    """Measures one part, or without an argument the two of the hot path, in less than three minutes."""
    options = parser()
    arguments = options.parse_args()
    rows = PARTS[arguments.part].rows if arguments.part in PARTS else ()
    if unknown := set(arguments.only) - set(rows):
        options.error(f"{arguments.part or 'it'} has no row {', '.join(sorted(unknown))}")
    if bool(arguments.cluster) != bool(arguments.nodes):
        options.error("--cluster and --nodes belong together: the coordinator, and its workers")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    if arguments.part == PLOTS:
        uvloop.run(drawing.draw_all(console.print))
    else:
        uvloop.run(_measure(console, arguments))


def parser() -> argparse.ArgumentParser:
    """The parts and options of the command line."""
    options = argparse.ArgumentParser(prog="python -m bench", description="Tidemark's benchmarks.")
    options.add_argument(
        "part",
        nargs="?",
        choices=(*PARTS, PLOTS),
        help="measure only this part, and do not change latest.json; or draw docs/plots from the results",
    )
    options.add_argument("minutes", nargs="?", type=float, default=SOAK_MINUTES, help="duration of a soak")
    options.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    options.add_argument("--workers", type=int, default=1, help="of ingest: processes of the server")
    options.add_argument("--python", action="store_true", help="of ingest: the server decodes usage in Python")
    options.add_argument("--rate", type=float, default=1_000.0, help="of cost: events a second on average")
    options.add_argument("--days", type=float, default=62.0, help="of cost: how long events are kept")
    options.add_argument(
        "--core", type=float, default=20.0, help="of cost: the price of one core, such as for a month"
    )
    options.add_argument("--gigabyte", type=float, default=0.1, help="of cost: that of 10**9 bytes of disk")
    options.add_argument("--scale", type=float, default=1.0, help="of rules: multiplies the alerts and customers")
    options.add_argument("--alerts", type=int, help="of rules: alerts of the large database of the row size")
    only = [name for name, part in PARTS.items() if part.rows]
    options.add_argument("--only", action="append", default=[], help=f"of {', '.join(only)}: only this row")
    options.add_argument("--events", type=int, default=sustained.EVENTS, help="of sustained: events that are sent")
    options.add_argument(
        "--seconds", type=float, default=sustained.SECONDS, help="of sustained: ends early after this time"
    )
    options.add_argument("--stored", type=int, default=0, help="of sustained: events in the table before")
    options.add_argument("--plain", default="", help="of nodes: URL of a PostgreSQL instead of the embedded one")
    options.add_argument("--cluster", default="", help="of nodes: URL of a database on the coordinator of a cluster")
    options.add_argument("--nodes", default="", help="of nodes: its workers, host:port,host:port")
    options.add_argument(
        "--servers", type=int, default=1, help="of nodes: servers at the same time, on the same usage"
    )
    options.add_argument("--rounds", type=int, default=nodes.ROUNDS, help="of nodes: visits of each database")
    return options


async def _measure(console: Console, arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    busy = machine.load_average()
    postgresql = PostgreSQL()
    found: dict[str, Any] = {
        "time": load.now().isoformat(timespec="seconds"),
        "machine": machine.facts(postgresql.folder),
        "versions": machine.versions(),
        "postgresql": postgresql.settings(),
        "load_average_before": busy,
    }
    for name in [arguments.part] if arguments.part else DEFAULT:
        console.print(f"{name}: {PARTS[name].title}", style="bold")
        measured = await PARTS[name].measure(postgresql, lambda line: console.print(f"  {line}"), arguments)
        found[name] = measured.figures
        for table in measured.tables:
            console.print(report.markdown(table) if arguments.markdown else table)
    found["seconds"] = round(time.monotonic() - started)
    path = results.write(arguments.part or results.LATEST, found)
    console.print(f"{found['seconds']} s; written to {path.relative_to(machine.ROOT)}", style="dim")


if __name__ == "__main__":
    main()
