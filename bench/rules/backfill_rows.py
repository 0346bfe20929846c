"""A new alert of all customers: how fast it is evaluated on what exists, and how usage runs meanwhile."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.rules import requests
from bench.rules.run import Run
from bench.rules.servers import Data, Server
from bench.rules.streaming import Window
from bench.support.goals import Figure, Goal
from bench.support.sending import TIMEOUT, channel
from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

ROUNDS = 2
EVENTS_EACH = 2  # stored events of each customer
PATIENCE = 45.0  # seconds for one backfill; one that takes longer is only known to be slower
POLLING = 0.1


@dataclass
class _Backfills:
    """The results of all rounds. alone, beside: seconds of a backfill, without usage and beside it.

    alone_cpu: seconds of CPU that the server and PostgreSQL used for a backfill without usage.
    """

    alone: list[float] = field(default_factory=list)
    alone_cpu: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    before: list[Window] = field(default_factory=list)
    during: list[Window] = field(default_factory=list)
    after: list[Window] = field(default_factory=list)


async def of_all(run: Run) -> list[Figure]:
    """An alert on gauges that another alert watches already."""
    found = await _measured(run, "all", [None] * (2 * ROUNDS))
    return _figures("all", run.scale.covered, found, usage=0.7, longest=0.3)


async def of_groups(run: Run) -> list[Figure]:
    """An alert on a property that no alert watches: its gauges are counted from stored events."""
    found = await _measured(run, "groups", requests.GROUP_KEYS)
    return _figures("groups", run.scale.covered, found, usage=0.6, longest=0.4)


async def _measured(run: Run, name: str, keys: Sequence[str | None]) -> _Backfills:
    """Creates two alerts in each round. keys: the group key of each."""
    found, seconds = _Backfills(), run.scale.seconds
    data = Data(run.scale.covered, EVENTS_EACH, grouped=True)
    async with run.server(name, data) as server:
        for number in range(ROUNDS):
            meter = server.meter()
            found.alone.append(await _backfill(server, keys[2 * number]))
            found.alone_cpu.append(meter.used())
            await server.meet_customers()  # so that usage does not evaluate for the first alert while it is measured
            async with server.streaming() as streaming:
                found.before.append(await streaming.undisturbed(seconds))
                with streaming.window() as window:
                    found.beside.append(await _backfill(server, keys[2 * number + 1]))
                found.during.append(window)
                found.after.append(await streaming.undisturbed(seconds / 2))
    return found


async def _backfill(server: Server, key: str | None) -> float:
    """Creates an alert of all customers; returns the seconds until its backfill is complete, at most PATIENCE."""
    async with channel(server.address) as over:
        stub = AlertServiceStub(over)
        created = await stub.CreateAlert(
            alert_service_pb2.CreateAlertRequest(alert=requests.for_all(key)), timeout=PATIENCE
        )
        started = time.perf_counter()
        get = alert_service_pb2.GetAlertRequest(alert_id=created.alert.alert_id)
        while (seconds := time.perf_counter() - started) < PATIENCE:
            alert = (await stub.GetAlert(get, timeout=TIMEOUT)).alert
            if alert.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE:
                return seconds
            await asyncio.sleep(POLLING)
    return PATIENCE


def _figures(row: str, gauges: int, found: _Backfills, *, usage: float, longest: float) -> list[Figure]:
    pairs = zip(found.before, found.during, strict=True)
    ratios = [during.rate / before.rate for before, during in pairs]
    details: dict[str, Any] = {
        "gauges": gauges,
        "seconds": [round(seconds, 2) for seconds in found.beside],
        "not_complete": sum(seconds >= PATIENCE for seconds in found.alone + found.beside),
        "before": [window.figures() for window in found.before],
        "during": [window.figures() for window in found.during],
        "after": [window.figures() for window in found.after],
    }
    alone = {"seconds": [round(seconds, 2) for seconds in found.alone]}
    afterwards = statistics.median(
        after.rate / before.rate for before, after in zip(found.before, found.after, strict=True)
    )
    slowest = max(window.longest for window in found.during)
    rate = None if row == "groups" else Goal(6_000)
    return [
        Figure(row, "gauges a second, beside usage", gauges / statistics.median(found.beside), "/s", rate, details),
        Figure(row, "gauges a second, alone", gauges / statistics.median(found.alone), "/s", rate, alone),
        Figure(row, "CPU of a gauge, alone", 1e6 * statistics.median(found.alone_cpu) / gauges, "µs"),
        Figure(row, "usage meanwhile ÷ before", statistics.median(ratios), "", Goal(usage)),
        Figure(row, "usage afterwards ÷ before", afterwards),
        Figure(row, "longest wait meanwhile", slowest, "s", Goal(longest, at_most=True)),
    ]
