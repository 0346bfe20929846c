"""Usage that streams beside what is measured, and its figures in windows of time."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.rules.usage import Acknowledgement, Streamed, Usage, one_by_one
from bench.support import cpu
from bench.support.client import Client
from bench.support.figures import milliseconds

WARM_UP = 1.5  # seconds before the first window
_PATIENCE = 120.0  # seconds for the last acknowledgements
_names = itertools.count()


@dataclass
class Window:
    """A part of the time, with the acknowledgements that came in it, once all usage was collected.

    cpu: seconds of CPU that the server and PostgreSQL used in it. batched, single: acknowledgements of batches and of
    single events. waiting: seconds of all waits of which a part was in the window. interruptions: failed streams.
    """

    begin: float
    end: float = 0.0
    cpu: float = 0.0
    batched: list[Acknowledgement] = field(default_factory=list)
    single: list[Acknowledgement] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    interruptions: int = 0

    @property
    def rate(self) -> float:
        """Events a second."""
        events = sum(one.events for one in itertools.chain(self.batched, self.single))
        return events / (self.end - self.begin)

    @property
    def cpu_of_event(self) -> float:
        """Microseconds of CPU of server and PostgreSQL for one event; includes what else they did in the window."""
        return 1e6 * self.cpu / max(1, sum(one.events for one in itertools.chain(self.batched, self.single)))

    @property
    def longest(self) -> float:
        """The longest wait in seconds."""
        return max(self.waiting, default=0.0)

    def p99_ms(self, acknowledged: Sequence[Acknowledgement]) -> float:
        """The p99 of their waits in milliseconds; the longest wait of the window if there are none."""
        waits = [one.waited for one in acknowledged]
        return milliseconds(waits, 0.99) if waits else round(1_000 * self.longest, 2)

    def collect(self, batched: Streamed, single: Streamed) -> None:
        """Takes its part of all results."""
        self.batched = [one for one in batched.acknowledgements if self.begin <= one.time <= self.end]
        self.single = [one for one in single.acknowledgements if self.begin <= one.time <= self.end]
        self.waiting = [
            one.waited
            for one in itertools.chain(batched.acknowledgements, single.acknowledgements)
            if one.time >= self.begin and one.time - one.waited <= self.end
        ]
        interruptions = itertools.chain(batched.interruptions, single.interruptions)
        self.interruptions = sum(self.begin <= one <= self.end for one in interruptions)

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        found: dict[str, Any] = {
            "seconds": round(self.end - self.begin, 2),
            "events_per_second": round(self.rate),
            "longest_ms": round(1_000 * self.longest, 1),
            "interruptions": self.interruptions,
        }
        for name, acknowledged in (("batch", self.batched), ("single", self.single)):
            if waits := [one.waited for one in acknowledged]:
                found |= {f"{name}_p50_ms": milliseconds(waits, 0.5), f"{name}_p99_ms": milliseconds(waits, 0.99)}
        if cpu.available():
            found["cpu_us"] = round(self.cpu_of_event, 1)
        return found


class Streaming:
    """Usage that streams now."""

    def __init__(self, server_pid: int, postmaster_pid: int) -> None:
        self._server_pid = server_pid
        self._postmaster_pid = postmaster_pid
        self.windows: list[Window] = []

    @contextmanager
    def window(self) -> Iterator[Window]:
        """The block is a window; its figures exist after the usage has ended."""
        meter = cpu.Meter(self._postmaster_pid, self._server_pid)
        window = Window(time.perf_counter())
        yield window
        window.end = time.perf_counter()
        window.cpu = meter.used()
        self.windows.append(window)

    async def undisturbed(self, seconds: float) -> Window:
        """A window in which nothing else happens."""
        with self.window() as window:
            await asyncio.sleep(seconds)
        return window


@dataclass(frozen=True)
class Clients:
    """The processes of the clients. batches, single: of usage. calls: of everything else."""

    batches: Client
    single: Client
    calls: Client

    @asynccontextmanager
    async def streaming(
        self, server: str, pids: tuple[int, int], customers: int, *, grouped: bool = False
    ) -> AsyncIterator[Streaming]:
        """Streams usage of that many customers during the block, in batches and one by one.

        pids: of the server and of the postmaster. The block begins after the usage has warmed up.
        """
        name = f"usage-{next(_names)}"
        runs: list[Awaitable[Streamed]] = []
        for client, job in (
            (self.batches, Usage(server, f"{name}-b", customers, grouped)),
            (self.single, one_by_one(server, f"{name}-s", customers, grouped=grouped)),
        ):
            runs.append((await client.prepare(job))())
        streaming = Streaming(*pids)
        tasks = [asyncio.ensure_future(run) for run in runs]
        try:
            await asyncio.wait(tasks, timeout=WARM_UP, return_when=asyncio.FIRST_EXCEPTION)
            yield streaming
        finally:
            self.batches.stop()
            self.single.stop()
            async with asyncio.timeout(_PATIENCE):
                collected = await asyncio.gather(*tasks)
        for window in streaming.windows:
            window.collect(*collected)
