"""The part `rules`: its rows, and their measurement one after the other."""

from collections.abc import Awaitable, Callable, Sequence

from bench.rules import backfill_rows, creation_rows, put_rows, size_rows
from bench.rules.figures import Figure, Report
from bench.rules.run import Run
from bench.rules.scale import Scale
from bench.rules.streaming import Clients
from bench.support import machine
from bench.support.client import Client
from bench.support.stack import PostgreSQL

ROWS: dict[str, Callable[[Run], Awaitable[list[Figure]]]] = {
    "size": size_rows.size,
    "after": creation_rows.after,
    "beside": creation_rows.beside,
    "create": creation_rows.create,
    "puts": put_rows.puts,
    "all": backfill_rows.of_all,
    "groups": backfill_rows.of_groups,
}


async def measure(
    postgresql: PostgreSQL, report: Callable[[str], None], factor: float = 1.0, only: Sequence[str] = ()
) -> Report:
    """Measures the rows of these names (none: all of them), each on databases of its own."""
    figures, loads = list[Figure](), dict[str, float]()
    with Client() as batches, Client() as single, Client() as calls:
        run = Run(postgresql, Clients(batches, single, calls), Scale(factor), report)
        for name, row in ROWS.items():
            if not only or name in only:
                loads[name] = machine.load_average()
                for figure in await row(run):
                    figures.append(figure)
                    report(f"{name}: {figure}")
    return Report(factor, figures, loads)
