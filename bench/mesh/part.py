"""The part `mesh`: its rows, one after the other."""

from collections.abc import Callable, Sequence

from bench.mesh.rows import ROWS
from bench.support import machine
from bench.support.goals import Figure, Report
from bench.support.stack import PostgreSQL


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], only: Sequence[str] = ()) -> Report:
    """Measures the rows of these names (none: all of them), each on databases of its own."""
    figures, loads = list[Figure](), dict[str, float]()
    for name, row in ROWS.items():
        if only and name not in only:
            continue
        loads[name] = machine.load_average()
        measured = await row(postgresql)
        figures += measured
        for figure in measured:
            report(f"{name}: {figure}")
    return Report("a server in a mesh", figures, loads, {})
