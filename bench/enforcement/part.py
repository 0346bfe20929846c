"""The part `enforcement`: its rows, one after the other."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import psycopg

from bench.enforcement import below, gates, rows, variants
from bench.enforcement.requests import CUSTOMERS, put_limits
from bench.enforcement.streams import Pairs
from bench.support import machine
from bench.support.access import Access
from bench.support.client import Client
from bench.support.environment import Unavailable
from bench.support.goals import Figure, Goal, Report
from bench.support.stack import PostgreSQL

KILLED = "killed"
_OF_ONE_SERVER = {"pairs": rows.pairs, "reserve": rows.reserves, "check": rows.checks, "watch": rows.watches}
_OF_OWN_SERVERS = {variants.ROLLING: variants.rolling, variants.SLOW: variants.slow}
ROWS = (*_OF_ONE_SERVER, *_OF_OWN_SERVERS, below.ROW, KILLED, *gates.GATES)

KILL_AFTER = 3.0  # seconds
_MESSAGES = 1_000  # more than are sent before the server is killed


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], only: Sequence[str] = ()) -> Report:
    """Measures the rows of these names (none: all of them), most of Tidemark on one server."""
    figures, loads, failures = list[Figure](), dict[str, float](), dict[str, str]()

    def add(name: str, measured: Sequence[Figure]) -> None:
        figures.extend(measured)
        for figure in measured:
            report(f"{name}: {figure}")

    wanted = [name for name in ROWS if not only or name in only]
    with Client() as client:
        if not set(wanted).isdisjoint(_OF_ONE_SERVER):
            async with postgresql.stack("bench_enforcement") as stack:
                await put_limits(Access(stack.server))
                for name, row in _OF_ONE_SERVER.items():
                    if name in wanted:
                        loads[name] = machine.load_average()
                        await asyncio.to_thread(postgresql.checkpoint)
                        add(name, await row(client, stack))
        for name, measured in _OF_OWN_SERVERS.items():
            if name in wanted:
                loads[name] = machine.load_average()
                add(name, await measured(postgresql, client))
        if below.ROW in wanted:
            loads[below.ROW] = machine.load_average()
            add(below.ROW, await below.measure(postgresql))
        if KILLED in wanted:
            loads[KILLED] = machine.load_average()
            add(KILLED, await _killed(postgresql, client))
    for name in gates.GATES:
        if name in wanted:
            loads[name] = machine.load_average()
            try:
                add(name, await gates.measure(postgresql, name))
            except Unavailable as error:
                report(f"{name}: skipped: {error}")
                failures[name] = str(error)
    return Report("check, reserve, settle", figures, loads, failures)


async def _killed(postgresql: PostgreSQL, client: Client) -> list[Figure]:
    """Kills the server and PostgreSQL in the middle of pairs; what was acknowledged must be there afterwards."""
    url = postgresql.create_database("bench_enforcement_killed")
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url)
        access = Access(program.address.server)
        await put_limits(access)
        running = asyncio.ensure_future(
            (await client.prepare(Pairs(access, "killed", CUSTOMERS, _MESSAGES, 60.0, notes=True)))()
        )
        await asyncio.sleep(KILL_AFTER)
        await program.killed()
        await postgresql.kill()
        found = await running
        await postgresql.start_again()
        await program.start()
        with psycopg.connect(url) as connection:
            kept = {one for (one,) in connection.execute("SELECT reservation_id FROM reservation")}
            counted = {one for (one,) in connection.execute("SELECT event_id FROM event")}
        wrong = rows.wrong_meters(url)
    details = {"acknowledged": len(found.reserved), "settled": len(found.settled)}
    return [
        Figure(
            KILLED,
            gates.LOST.format(len(found.reserved)),
            len(found.reserved - kept),
            "",
            Goal(0, at_most=True),
            details,
        ),
        Figure(
            KILLED,
            f"settlements of {len(found.settled):,} acknowledged that kill -9 lost",
            len(found.settled - counted),
            "",
            Goal(0, at_most=True),
        ),
        Figure(KILLED, "meters that differ from the stored events", wrong, "", Goal(0, at_most=True)),
    ]
