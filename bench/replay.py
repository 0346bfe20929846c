"""replay: files of usage through `tidemark replay`: reading them alone, and sending them to a server."""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from bench.support import cpu, load
from bench.support.load import DENSE, Load
from bench.support.sending import create_alerts
from bench.support.stack import PostgreSQL, Stack
from cli.replay.batches import Batches
from cli.replay.cloud_events import of_cloud_events
from cli.replay.collection import rare_collection
from cli.replay.compiled import compiled
from cli.replay.mapping import FieldSource, RowMapping
from cli.replay.numbers import NumberForm
from cli.replay.row_file import CLOUDEVENTS, CSV, RowFile
from cli.replay.times import TimeReader
from evaluator.events import UsageEvent
from gateway.cloudevents.mapping import default_mapping

ROUNDS = 3
BATCH = 2_000
GOAL = 50_000  # rows a second
WITH_IDS, WITHOUT_IDS, QUOTED, NDJSON, NUMBERS, EVENTS, COLUMNS = (
    "CSV",
    "CSV without ids",
    "CSV, each cell in quotes",
    "NDJSON",
    "NDJSON with numbers",
    "CloudEvents",
    "Parquet",
)
_NAMES = {
    WITH_IDS: "a.csv",
    WITHOUT_IDS: "b.csv",
    QUOTED: "c.csv",
    NDJSON: "d.ndjson",
    NUMBERS: "e.ndjson",
    EVENTS: "f.ndjson",
    COLUMNS: "g.parquet",
}
_HEADER = ("event_id", "customer_id", "quantity", "time")
_METRIC = RowMapping({"metric_id": FieldSource(constant=load.METRIC)})


@dataclass(frozen=True)
class Whole:
    """A file that was sent. rate: rows a second. client, server: microseconds of CPU for a row."""

    rate: float
    client: float
    server: float


@dataclass(frozen=True)
class Report:
    """read: rows a second of each kind of file, without a server. passed: of a CSV, by --resume. whole: each round
    with a server.
    """

    read: dict[str, float]
    passed: float
    whole: Sequence[Whole]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        rate, client, server = (
            statistics.median(getattr(one, name) for one in self.whole) for name in ("rate", "client", "server")
        )
        return {
            "rows": DENSE.events,
            "rows_per_second_read_and_mapped": {kind: round(rate) for kind, rate in self.read.items()},
            "rows_per_second_passed": round(self.passed),
            "rows_per_second_sent": round(rate),
            "client_cpu_us_per_row": round(client, 2),
            "server_cpu_us_per_row": round(server, 2),
            "sent_to_read": round(rate / self.read[WITH_IDS], 3),
        }

    def table(self) -> Table:
        """The same for people."""
        figures = self.figures()
        table = Table(title="tidemark replay")
        for name in ("what", "rows/s", "goal", "CPU client", "CPU server"):
            table.add_column(name, justify="left" if name == "what" else "right")
        for kind, rate in figures["rows_per_second_read_and_mapped"].items():
            table.add_row(f"{kind}, read and mapped", f"{rate:,}", f"≥ {GOAL:,}", "", "")
        table.add_row(f"{WITH_IDS}, passed by --resume", f"{figures['rows_per_second_passed']:,}", "", "", "")
        table.add_row(
            f"{WITH_IDS}, sent to a server",
            f"{figures['rows_per_second_sent']:,}",
            f"≥ {GOAL:,}",
            f"{figures['client_cpu_us_per_row']:.1f} µs",
            f"{figures['server_cpu_us_per_row']:.1f} µs",
        )
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures each kind of file alone, and then the first with a server."""
    whole = []
    with TemporaryDirectory() as folder:
        files = write_files(Path(folder), "read")
        rates: dict[str, list[float]] = {kind: [] for kind in files}
        for _ in range(ROUNDS):
            for kind, path in files.items():
                rates[kind].append(DENSE.events / seconds_to_read(path))
        read = {kind: statistics.median(found) for kind, found in rates.items()}
        passed = statistics.median(DENSE.events / seconds_to_pass(files[WITH_IDS]) for _ in range(ROUNDS))
        report(", ".join(f"{kind} {rate:,.0f}/s" for kind, rate in read.items()))
        async with postgresql.stack("bench_replay") as stack:
            await create_alerts(stack.server, load.alerts())
            for number in range(ROUNDS + 1):  # the first warms everything up and does not count
                path = Path(folder) / f"round-{number}.csv"
                _write_csv(path, Load(f"round-{number}", DENSE.gauges, DENSE.events, load.now()).make())
                found = await _sent(stack, path)
                if number:
                    whole.append(found)
                    report(f"sent {found.rate:,.0f}/s, client {found.client:.1f} µs, server {found.server:.1f} µs")
    return Report(read, passed, whole)


def seconds_to_read(path: Path) -> float:
    """How long it takes to read a file and to make events of its rows, in the form of the wire."""
    with rare_collection(), RowFile(path, wanted=_METRIC.wanted) as rows:
        started = time.perf_counter()
        if rows.form == CLOUDEVENTS:
            to_event = of_cloud_events(default_mapping(), 0)
        else:
            is_csv = rows.form == CSV
            to_event = compiled(_METRIC, rows.columns, NumberForm().reader(), TimeReader(), are_texts=is_csv)
        events = sum(len(batch.events) for batch in Batches(rows, to_event, BATCH).all())
        seconds = time.perf_counter() - started
    assert events == DENSE.events
    return seconds


def seconds_to_pass(path: Path) -> float:
    """How long it takes to pass all rows of a file, as a replay does that continues after them."""
    with RowFile(path, wanted=_METRIC.wanted) as rows:
        started = time.perf_counter()
        assert sum(count for count, _ in rows.passed(DENSE.events)) == DENSE.events
        return time.perf_counter() - started


async def _sent(stack: Stack, path: Path) -> Whole:
    before, children = cpu.seconds(*stack.server_pids), _children()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli.main", "replay", str(path), "--metric", f"={load.METRIC}", "--json"),
        *("--server", stack.server),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    found = json.loads(out)
    assert found["accepted"] == DENSE.events, found
    client, server = _children() - children, cpu.seconds(*stack.server_pids) - before
    return Whole(DENSE.events / found["seconds"], client / DENSE.events * 1e6, server / DENSE.events * 1e6)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_files(folder: Path, name: str) -> dict[str, Path]:
    """A file of each kind with the same events."""
    events = Load(name, DENSE.gauges, DENSE.events, load.now()).make()
    paths = {kind: folder / file for kind, file in _NAMES.items()}
    header = _HEADER
    cells = _write_csv(paths[WITH_IDS], events)
    paths[WITHOUT_IDS].write_text("".join(",".join(row[1:]) + "\n" for row in (header, *cells)))
    paths[QUOTED].write_text("".join('"' + '","'.join(row) + '"\n' for row in (header, *cells)))
    rows = [dict(zip(header, row, strict=True)) for row in cells]
    paths[NDJSON].write_text("".join(json.dumps(row) + "\n" for row in rows))
    numbers = ({**row, "quantity": float(row["quantity"]) / 8} for row in rows)
    paths[NUMBERS].write_text("".join(json.dumps(row) + "\n" for row in numbers))
    paths[EVENTS].write_text("".join(json.dumps(_cloud_event(event)) + "\n" for event in events))
    _write_parquet(paths[COLUMNS], events)
    return paths


def _write_parquet(path: Path, events: Sequence[UsageEvent]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.table(
            {
                "event_id": [one.event_id for one in events],
                "customer_id": [one.customer_id for one in events],
                "quantity": pyarrow.array([one.quantity for one in events], pyarrow.decimal128(38, 9)),
                "time": [one.event_time for one in events],
            }
        ),
        path,
    )


def _write_csv(path: Path, events: Sequence[UsageEvent]) -> Sequence[Sequence[str]]:
    """Writes a file, and returns the cells of its rows."""
    cells = [(one.event_id, one.customer_id, str(one.quantity), one.event_time.isoformat()) for one in events]
    path.write_text("".join(",".join(row) + "\n" for row in (_HEADER, *cells)))
    return cells


def _cloud_event(event: UsageEvent) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event.event_id,
        "source": "/bench",
        "type": load.METRIC,
        "subject": event.customer_id,
        "time": event.event_time.isoformat(),
        "data": {"quantity": str(event.quantity)},
    }
