"""The metrics of any process: CPU, memory, open files, garbage collection, and the delay of the event loop."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import GCCollector, ProcessCollector

from runtime.monitoring.instruments import Instruments

INTERVAL = 0.25  # seconds between two measurements of the event loop
DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@contextmanager
def process_metrics(instruments: Instruments) -> Iterator[None]:
    """Adds the metrics of the process; measures the event loop for the time of the block."""
    ProcessCollector(registry=instruments.registry)
    GCCollector(registry=instruments.registry)
    delays = _EventLoopDelays(instruments)
    delays.start()
    try:
        yield
    finally:
        delays.stop()


class _EventLoopDelays:
    """Measures how late the event loop runs a callback: so long a call waits that has arrived."""

    def __init__(self, instruments: Instruments) -> None:
        self._delays = instruments.histogram(
            "tidemark_event_loop_delay_seconds",
            "How late the event loop ran a callback that was due, four times a second.",
            DELAY_BUCKETS,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Plans the next measurement."""
        self._due = time.perf_counter() + INTERVAL
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._measure)

    def stop(self) -> None:
        """Ends the measurements."""
        if self._timer is not None:
            self._timer.cancel()

    def _measure(self) -> None:
        self._delays.observe(max(0.0, time.perf_counter() - self._due))
        self.start()
