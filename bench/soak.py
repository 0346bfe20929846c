"""soak: memory, backlog and loss in minutes of steady traffic through one notifier, with some failing receivers."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.support.fast_receiver import FAILING, FastReceiver
from bench.support.notifier_stack import QueueDatabase, notification_id, notifier_on, resident
from bench.support.stack import PostgreSQL

RATE = 100  # notifications a second, each to one endpoint
ENDPOINTS = 40
FAILING_ENDPOINTS = 2  # 5 % of the endpoints; they answer half of all requests with 500
COMMIT_PAUSE = 0.1  # seconds between two commits
SAMPLE_PAUSE = 5.0  # seconds between two samples of memory and backlog
WARM_UP = 20.0  # seconds before the first sample
DRAIN_TIMEOUT = 60.0  # seconds for the deliveries that remain at the end; retries to a failing receiver take hours


@dataclass(frozen=True)
class Report:
    """The result. resident: bytes of memory; empty if the system does not report it."""

    minutes: float
    sent: int
    lost: int  # deliveries that were not accepted, and have no next attempt
    duplicates: int  # accepted more than once
    refused: int  # requests that were answered with 500
    backlogs: list[int]  # deliveries that were not finished
    waiting: int  # deliveries with a next attempt when the measurement ends
    resident: list[int]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        memory = [round(one / 2**20, 1) for one in self.resident]
        return {
            "minutes": round(self.minutes, 1),
            "deliveries": self.sent,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "answered_with_500": self.refused,
            "backlog_max": max(self.backlogs, default=0),
            "waiting_for_another_attempt": self.waiting,
            "resident_start_mib": memory[0] if memory else None,
            "resident_end_mib": memory[-1] if memory else None,
            "resident_max_mib": max(memory, default=None),
            "resident_by_minute_mib": memory[:: round(60 / SAMPLE_PAUSE)],
        }

    def table(self) -> Table:
        """The figures as a table for people."""
        table = Table(title="soak")
        table.add_column("figure")
        table.add_column("measured", justify="right")
        for name, value in self.figures().items():
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value))
        return table


async def measure(postgresql: PostgreSQL, minutes: float, report: Callable[[str], None]) -> Report:
    """Sends for so many minutes, waits for the last deliveries, and counts them."""
    draw = random.Random(1)
    accepted: Counter[tuple[str, str]] = Counter()
    expected: list[tuple[str, str]] = []
    refused = 0
    memory: list[int] = []
    backlogs: list[int] = []

    async def count() -> None:
        nonlocal refused
        for arrival in await receiver.take():
            if arrival.accepted:
                accepted[arrival.path, arrival.webhook_id] += 1
            else:
                refused += 1

    with FastReceiver() as receiver:
        async with notifier_on(postgresql, "bench_soak") as (database, program):
            paths = [f"{FAILING if number < FAILING_ENDPOINTS else ''}/{number}" for number in range(ENDPOINTS)]
            await database.endpoints((receiver.url + path, f"bench.{number}") for number, path in enumerate(paths))
            begin = time.monotonic()
            next_sample = begin + WARM_UP
            for tick in itertools.count(1):
                if time.monotonic() >= begin + minutes * 60:
                    break
                for _ in range(round(RATE * COMMIT_PAUSE)):
                    number = draw.randrange(ENDPOINTS)
                    expected.append((paths[number], notification_id(database.next_number)))
                    await database.commit(1, f"bench.{number}")
                if time.monotonic() >= next_sample:
                    next_sample += SAMPLE_PAUSE
                    await count()
                    await _sample(database, program.pid, memory, backlogs)
                await asyncio.sleep(max(0.0, begin + tick * COMMIT_PAUSE - time.monotonic()))
            lasted = time.monotonic() - begin
            report(f"{len(expected):,} deliveries in {lasted / 60:.1f} minutes; waiting for the last ones")
            end = time.monotonic() + DRAIN_TIMEOUT
            while await database.unfinished() and time.monotonic() < end:
                await count()
                await asyncio.sleep(1.0)
            await _sample(database, program.pid, memory, backlogs)
            waiting = await database.waiting_ids()
            await count()
    return Report(
        minutes=lasted / 60,
        sent=len(expected),
        lost=sum(1 for one in expected if not accepted[one] and one[1] not in waiting),
        duplicates=sum(number - 1 for number in accepted.values() if number > 1),
        refused=refused,
        backlogs=backlogs,
        waiting=len(waiting),
        resident=memory,
    )


async def _sample(database: QueueDatabase, pid: int, memory: list[int], backlogs: list[int]) -> None:
    if (now := resident(pid)) is not None:
        memory.append(now)
    backlogs.append(await database.unfinished())
