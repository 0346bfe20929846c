"""The metrics of the embedded server, in the process that holds it."""

import logging
import os
import shutil
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtime.actions import LogAction
from runtime.monitoring.instruments import Instruments
from runtime.tasks import BackgroundTask, FailureLog
from store.embedded.holder import Holder, held

INTERVAL = 60.0  # seconds between two measurements of the size of the data, which read the folder of each table

logger = logging.getLogger(__name__)


@asynccontextmanager
async def embedded_metrics(instruments: Instruments) -> AsyncIterator[None]:
    """Adds the metrics of the server that this process holds, if any; measures it for the time of the block."""
    holder = held()
    if holder is None:
        yield
        return
    size = _Size(holder)
    gauge = instruments.gauge
    gauge(
        "tidemark_embedded_database_up",
        "1 if the embedded PostgreSQL runs, 0 if it has ended.",
        lambda: float(not holder.ended()),
    )
    instruments.counter(
        "tidemark_embedded_database_restarts_total",
        "How often this process started the embedded PostgreSQL again after it had ended.",
        lambda: holder.restarts,
    )
    gauge("tidemark_embedded_database_size_bytes", "Size of the data of the embedded PostgreSQL.", lambda: size.used)
    gauge(
        "tidemark_embedded_database_disk_free_bytes",
        "Free space on the disk with the data of the embedded PostgreSQL.",
        lambda: size.free,
    )
    task = BackgroundTask(
        size.measure,
        FailureLog(logger, "the size of the embedded database cannot be measured", LogAction.METRIC_FAILED),
        name="embedded size",
        interval=INTERVAL,
    )
    task.start()
    try:
        yield
    finally:
        await task.stop()


class _Size:
    """The size of the data in bytes, and of what is free; None until they are measured."""

    def __init__(self, holder: Holder) -> None:
        self._data = holder.layout.data
        self.used: float | None = None
        self.free: float | None = None

    async def measure(self) -> None:
        """Measures both, in a thread."""
        self.used, self.free = await to_thread(_measure, self._data)


def _measure(folder: Path) -> tuple[float, float]:
    return _bytes_below(folder), shutil.disk_usage(folder).free


def _bytes_below(folder: Path) -> int:
    """The bytes of all files below a folder. A file that PostgreSQL removes meanwhile is left out."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += _bytes_of(entry)
        except FileNotFoundError:
            continue
    return total


def _bytes_of(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
