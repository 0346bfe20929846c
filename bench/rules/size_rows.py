"""How the number of alerts of single customers affects usage, memory and the start of a server."""

import statistics

from bench.rules.figures import Figure, Goal
from bench.rules.run import Run
from bench.rules.servers import Data, Server
from bench.rules.streaming import Window
from bench.support import memory

FEW = 10  # alerts of the database that the large one is compared with


async def size(run: Run) -> list[Figure]:
    """The same usage on two servers: one has few alerts of single customers, the other one for each customer."""
    active, alerts = run.scale.active, run.scale.alerts
    few_windows, many_windows = list[Window](), list[Window]()
    async with (
        run.server("few", Data(active, alerts=FEW)) as few,
        run.server("many", Data(active, alerts=alerts)) as many,
    ):
        before = memory.of(many.program.pid)
        for one in (few, many):
            await one.meet_customers()
        for _ in range(run.scale.rounds):
            for server, windows in ((few, few_windows), (many, many_windows)):
                windows.append(await _window(server, run.scale.seconds))
        after, after_few = memory.of(many.program.pid), memory.of(few.program.pid)
    starts = {
        "cpu_seconds": many.starting_cpu,
        "few_alerts_seconds": round(few.first_acknowledgement, 2),
        "few_alerts_cpu_seconds": few.starting_cpu,
    }
    ratios = [large.rate / small.rate for small, large in zip(few_windows, many_windows, strict=True)]
    cpu = statistics.median(window.cpu_of_event for window in many_windows) / statistics.median(
        window.cpu_of_event for window in few_windows
    )
    details = {
        "alerts": alerts,
        "active_customers": active,
        "ratios": [round(ratio, 3) for ratio in ratios],
        "few": [window.figures() for window in few_windows],
        "many": [window.figures() for window in many_windows],
    }
    figures = [
        Figure(
            "size", f"usage with {alerts:,} alerts ÷ with {FEW}", statistics.median(ratios), "", Goal(0.9), details
        ),
        Figure("size", "the same, CPU of an event", cpu),
        Figure(
            "size",
            f"start to first acknowledgement, {alerts:,} alerts",
            many.first_acknowledgement,
            "s",
            Goal(3, at_most=True),
            starts,
        ),
    ]
    if before and after and after_few:
        figures.append(
            Figure(
                "size",
                f"memory with {alerts:,} alerts, {active:,} active customers",
                after.resident / 1e6,
                "MB",
                Goal(300, at_most=True),
                {
                    "proportional_mb": round(after.proportional / 1e6, 1),
                    "before_usage_mb": round(before.resident / 1e6, 1),
                    "few_alerts_mb": round(after_few.resident / 1e6, 1),
                },
            )
        )
    return figures


async def _window(server: Server, seconds: float) -> Window:
    async with server.streaming() as streaming:
        return await streaming.undisturbed(seconds)
