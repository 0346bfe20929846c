"""How the number of alerts of single customers affects usage, memory and the start of a server."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.rules.run import Run
from bench.rules.servers import Data, Server
from bench.rules.streaming import Window
from bench.support import memory
from bench.support.goals import Figure, Goal
from bench.support.memory import Memory

FEW = 10  # alerts of the database that the large one is compared with


@dataclass
class _Side:
    """One of the two servers, and what was measured on it; of each item one for each round.

    starts: seconds from the start of the process to the first acknowledgement. starting_cpu: seconds of CPU that it
    used until then. meetings: seconds for one event of each customer after a start. windows: of usage after that.
    """

    server: Server
    starts: list[float] = field(default_factory=list)
    starting_cpu: list[float] = field(default_factory=list)
    meetings: list[float] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    memory: Memory | None = None

    async def round(self, seconds: float) -> None:
        """Measures a server that has just started."""
        self.starts.append(self.server.first_acknowledgement)
        self.starting_cpu.append(self.server.starting_cpu)
        self.meetings.append(await self.server.meet_customers())
        async with self.server.streaming() as streaming:
            self.windows.append(await streaming.undisturbed(seconds))
        self.memory = memory.of(self.server.program.pid)

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "start_seconds": [round(seconds, 2) for seconds in self.starts],
            "start_cpu_seconds": self.starting_cpu,
            "meeting_seconds": [round(seconds, 2) for seconds in self.meetings],
            "resident_mb": self.memory and round(self.memory.resident / 1e6, 1),
            "proportional_mb": self.memory and round(self.memory.proportional / 1e6, 1),
            "usage": [window.figures() for window in self.windows],
        }


async def size(run: Run) -> list[Figure]:
    """The same usage on two servers: one has few alerts of single customers, the other one for each customer."""
    active, alerts = run.scale.active, run.scale.alerts
    async with (
        run.server("few", Data(active, alerts=FEW)) as few_server,
        run.server("many", Data(active, alerts=alerts)) as many_server,
    ):
        few, many = _Side(few_server), _Side(many_server)
        for number in range(run.scale.rounds):
            for side in (few, many):
                if number:
                    await side.server.stop()
                    await side.server.start()
                await side.round(run.scale.seconds)
    return _figures(few, many, alerts, active)


def _figures(few: _Side, many: _Side, alerts: int, active: int) -> list[Figure]:
    def ratio(of: Callable[[_Side], list[float]]) -> float:
        return statistics.median(large / small for small, large in zip(of(few), of(many), strict=True))

    details = {"alerts": alerts, "active_customers": active, "few": few.figures(), "many": many.figures()}
    usage = ratio(lambda side: [window.rate for window in side.windows])
    cpu_of_event = ratio(lambda side: [window.cpu_of_event for window in side.windows])
    # In the first round the gauges are evaluated for the alerts that are new to them.
    meeting = 1 / ratio(lambda side: side.meetings[1:])
    start = statistics.median(many.starts)
    figures = [
        Figure("size", f"usage with {alerts:,} alerts ÷ with {FEW}", usage, "", Goal(0.9), details),
        Figure("size", "the same, CPU of an event", cpu_of_event),
        Figure("size", "the same, first event of each customer after a start", meeting),
        Figure("size", f"start to first acknowledgement, {alerts:,} alerts", start, "s", Goal(3, at_most=True)),
        Figure("size", f"the same, {FEW} alerts", statistics.median(few.starts), "s"),
    ]
    if many.memory is not None:
        name = f"memory with {alerts:,} alerts, {active:,} active customers"
        figures.append(Figure("size", name, many.memory.resident / 1e6, "MB", Goal(300, at_most=True)))
    return figures
