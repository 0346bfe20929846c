"""The measured views at each size, as a table for people and as figures."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from rich.table import Table

from bench.support.stack import PostgreSQL
from bench.views import data, new_metrics, watchers
from bench.views.lists import cases
from bench.views.measuring import Beats, Measured, measure
from bench.views.new_metrics import NewMetric
from bench.views.watchers import Watched
from cli.serving.garbage_collection import reduce_garbage_collection
from runtime.clock import SystemClock
from store.identity import keys
from store.migrate import migrate
from store.postgres.database import Database
from tests.support.server.running import running

SIZES = (10, 1_000, 100_000)
METHODS = (
    "ListAlerts",
    "GetCustomerAlert",
    "ListCustomerAlerts",
    "SummarizeCustomerAlerts",
    "ListNotifications",
    "ListEndpoints",
    "ListDeliveries",
)
WATCHERS = "watchers"
NEW_METRICS = "PutMetric"
_COLUMNS = ("statements", "rows", "buffers", "ms", "KiB", "block, ms")


@dataclass(frozen=True)
class Report:
    """What was measured of each call, at each size."""

    measured: Sequence[Measured]
    watched: Sequence[Watched] = ()
    new_metrics: Sequence[NewMetric] = ()

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "calls": [asdict(one) for one in self.measured],
            "watchers": [asdict(one) for one in self.watched],
            "new_metrics": [asdict(one) for one in self.new_metrics],
        }

    def table(self) -> Table:
        """One row for each call; in each cell the figures at the sizes, the smallest first."""
        sizes = sorted({one.size for one in self.measured})
        table = Table(title=f"lists and views at {' / '.join(f'{size:,}' for size in sizes)}")
        table.add_column("call")
        for name in _COLUMNS:
            table.add_column(name, justify="right")
        for name in dict.fromkeys(one.name for one in self.measured):
            of_sizes = {one.size: _cells(one) for one in self.measured if one.name == name}
            cells = [of_sizes.get(size, ("refused",) * len(_COLUMNS)) for size in sizes]
            table.add_row(name, *(" / ".join(cell) for cell in zip(*cells, strict=True)))
        return table


def _cells(one: Measured) -> tuple[str, ...]:
    return (
        str(one.statements),
        f"{one.rows:,}",
        f"{one.buffers:,}",
        f"{one.milliseconds:g}",
        f"{one.answer_bytes / 1024:.0f}",
        f"{one.block:g}",
    )


async def measure_all(
    postgresql: PostgreSQL, report: Callable[[str], None], only: Sequence[str] = (), sizes: Sequence[int] = SIZES
) -> Report:
    """Measures every call at every size, each size in a database of its own.

    only: the names of rows, of METHODS, WATCHERS or NEW_METRICS (none: all of them).
    """
    measured: list[Measured] = []
    methods = [name for name in only if name in METHODS] if only else METHODS
    for size in sizes if methods else ():
        measured += await _at(postgresql.create_database(f"bench_views_{size}"), size, report, methods)
    watched = await watchers.measure(postgresql, report) if not only or WATCHERS in only else []
    put = await new_metrics.measure(postgresql, report, sizes) if not only or NEW_METRICS in only else []
    return Report(measured, watched, put)


async def _at(url: str, size: int, report: Callable[[str], None], methods: Sequence[str]) -> list[Measured]:
    await asyncio.to_thread(migrate, url)
    database, clock, beats = Database(url), SystemClock(), Beats()
    try:
        async with database.transaction() as connection:
            key = (await keys.create_key(connection, "bench", clock.now())).key
        reduce_garbage_collection()  # as the command does that starts a server
        async with running(database, clock) as server, beats.counting():
            ids = await data.prepare(server, key, clock)
            await asyncio.to_thread(data.copy, url, size, ids)
            report(f"{size:,} of each kind")
            found = []
            for case in cases(ids):
                if case.method.rpartition("/")[2] not in methods:
                    continue
                try:
                    found.append(await measure(server.channel, key, url, case, size, beats))
                except grpc.aio.AioRpcError as error:
                    report(f"{case.name}: {error.code().name}")
                    continue
                report(f"{found[-1].name}: {' '.join(_cells(found[-1]))}")
            return found
    finally:
        await database.close()
