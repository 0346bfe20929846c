"""Alerts of single customers that are created while usage streams, and as fast as possible."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.rules.changes import BATCH_ALERTS, Changed, Changes, Kind, change_figures
from bench.rules.run import Run
from bench.rules.servers import Data, Server
from bench.rules.streaming import Window
from bench.support.goals import Figure, Goal

CALLERS = 16
BATCH_CALLERS = 2
PER_SECOND = 100  # alerts that are created beside usage
AFTER_SECONDS = 5.0  # after the creation of many
LONGEST = 60.0  # seconds in which the calls that create many alerts begin


async def after(run: Run) -> list[Figure]:
    """The waits of usage after many alerts were created in batches."""
    calls = max(1, run.scale.created // BATCH_ALERTS)
    during, afterwards, created = list[Window](), list[Window](), list[Changed]()
    async with _met(run, "after") as server, server.streaming() as streaming:
        undisturbed = await streaming.undisturbed(run.scale.seconds)
        for number in range(2):
            with streaming.window() as window:
                changes = Changes(server.address, Kind.BATCH, 1, run.scale.active, number * calls, LONGEST, calls)
                created.append(await server.change(changes))
            during.append(window)
            afterwards.append(await streaming.undisturbed(AFTER_SECONDS))
    alerts = created[0].changed
    details = {
        "created": [one.figures() for one in created],
        "undisturbed": undisturbed.figures(),
        "during": [window.figures() for window in during],
        "after": [window.figures() for window in afterwards],
    }
    longest = max(window.longest for window in afterwards)
    return [
        Figure("after", f"longest wait after {alerts:,} new alerts", longest, "s", Goal(0.3, at_most=True), details),
        Figure("after", "longest wait while they are created", max(window.longest for window in during), "s"),
        Figure("after", "longest wait undisturbed", undisturbed.longest, "s"),
    ]


async def beside(run: Run) -> list[Figure]:
    """Usage while alerts are created one at a time, at a given rate."""
    seconds = run.scale.seconds
    undisturbed, disturbed, created = list[Window](), list[Window](), list[Changed]()
    async with _met(run, "beside") as server, server.streaming() as streaming:
        first = 0
        for _ in range(run.scale.rounds):
            undisturbed.append(await streaming.undisturbed(seconds))
            changes = Changes(
                server.address, Kind.CREATE, CALLERS, run.scale.active, first, seconds, per_second=PER_SECOND
            )
            with streaming.window() as window:
                created.append(await server.change(changes))
            disturbed.append(window)
            first += created[-1].changed
            await asyncio.sleep(1)
    rates = [beside.rate / alone.rate for alone, beside in zip(undisturbed, disturbed, strict=True)]
    details: dict[str, Any] = {
        "ratios": [round(rate, 3) for rate in rates],
        "undisturbed": [window.figures() for window in undisturbed],
        "disturbed": [window.figures() for window in disturbed],
        "created": [one.figures() for one in created],
    }
    figures = [
        Figure("beside", "usage beside creation ÷ undisturbed", statistics.median(rates), "", Goal(0.8), details),
        Figure(
            "beside",
            f"alerts created meanwhile, of {PER_SECOND} a second",
            statistics.median(one.rate for one in created),
            "/s",
            Goal(0.95 * PER_SECOND),
        ),
    ]
    for name, of in (
        ("single events", lambda window: window.p99_ms(window.single)),
        ("batches", lambda window: window.p99_ms(window.batched)),
    ):
        alone, other = (statistics.median(map(of, windows)) for windows in (undisturbed, disturbed))
        found = {"alone_p99_ms": alone, "beside_p99_ms": other}
        figures.append(
            Figure("beside", f"p99 of {name} ÷ undisturbed", other / alone, "", Goal(3, at_most=True), found)
        )
    return figures


async def create(run: Run) -> list[Figure]:
    """Alerts created a second by callers that do nothing else, one by one and in batches."""
    singly, batched = list[Changed](), list[Changed]()
    async with run.server("create", Data(run.scale.active)) as server:
        for number in range(run.scale.rounds):
            singly.append(await _created(run, server, Kind.CREATE, CALLERS, 10_000 * number))
            batched.append(await _created(run, server, Kind.BATCH, BATCH_CALLERS, 100 * number))
    batches = f"{BATCH_CALLERS} callers of batches of {BATCH_ALERTS:,}"
    return [
        *change_figures("create", f"created a second, {CALLERS} callers", singly, Goal(600)),
        *change_figures("create", f"created a second, {batches}", batched, Goal(4_000)),
    ]


@asynccontextmanager
async def _met(run: Run, name: str) -> AsyncIterator[Server]:
    """A server that has met all customers."""
    async with run.server(name, Data(run.scale.active)) as server:
        await server.meet_customers()
        yield server


async def _created(run: Run, server: Server, kind: Kind, callers: int, first: int) -> Changed:
    return await server.change(Changes(server.address, kind, callers, run.scale.active, first, run.scale.seconds))
