"""The part `rules`: its rows, and their measurement one after the other."""

from collections.abc import Awaitable, Callable, Sequence

import grpc

from bench.rules import backfill_rows, creation_rows, put_rows, size_rows
from bench.rules.run import Run
from bench.rules.scale import Scale
from bench.rules.streaming import Clients
from bench.support import machine
from bench.support.client import Client, JobFailed
from bench.support.goals import Figure, Report
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
    postgresql: PostgreSQL, report: Callable[[str], None], scale: Scale, only: Sequence[str] = ()
) -> Report:
    """Measures the rows of these names (none: all of them), each on databases of its own.

    A row that fails is reported as such; the rows after it are still measured.
    """
    figures, loads, failures = list[Figure](), dict[str, float](), dict[str, str]()
    for name in ROWS:
        if only and name not in only:
            continue
        loads[name] = machine.load_average()
        try:
            measured = await _row(name, postgresql, report, scale)
        except (JobFailed, grpc.aio.AioRpcError, TimeoutError) as error:
            failures[name] = repr(error)
            report(f"{name}: failed: {failures[name]}")
            continue
        figures += measured
        for figure in measured:
            report(f"{name}: {figure}")
    return Report(f"rules, scale {scale.factor:g}", figures, loads, failures, {"scale": scale.factor})


async def _row(name: str, postgresql: PostgreSQL, report: Callable[[str], None], scale: Scale) -> list[Figure]:
    """Measures a row, with clients of its own: those of a row that failed may still be busy."""
    with Client() as batches, Client() as single, Client() as calls:
        return await ROWS[name](Run(postgresql, Clients(batches, single, calls), scale, report))
