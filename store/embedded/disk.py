"""The free space of the disk with the data: reported while there is still time to make room."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

MB, GB = 1024**2, 1024**3
CHECK_INTERVAL = 10.0  # seconds between two checks
# Twice of what the log of changes may grow by before its next checkpoint (max_wal_size).
LEAST_SHARE = 10  # a tenth of the disk
LEAST_FREE = 512 * MB  # on small disks
MOST_FREE = 32 * GB  # on large ones
ENOUGH = 1.2  # times the limit, for the report that there is space again

# (total, free) bytes of the file system of a path.
Usage = Callable[[Path], tuple[int, int]]


def usage_of(path: Path) -> tuple[int, int]:
    """The bytes of the file system of a path: of all of it, and those that are free."""
    found = shutil.disk_usage(path)
    return found.total, found.free


class DiskReporter(Protocol):
    """Reports what happens to the disk."""

    def disk_runs_full(self, free: int, total: int) -> None:
        """Less is free than the database may need soon; bytes. Reported again each time that half of it is gone."""

    def disk_has_space(self, free: int) -> None:
        """There is enough space again; bytes."""


class DiskWatch:
    """Compares the free space of a disk with a limit, at most once in CHECK_INTERVAL."""

    def __init__(self, path: Path, reporter: DiskReporter, usage: Usage = usage_of) -> None:
        self._path = path
        self._reporter = reporter
        self._usage = usage
        self._next = 0.0
        self._reported: int | None = None  # what was free at the last report; None while there is space

    def check(self) -> None:
        """Checks, if it is time for it, and reports. A disk that cannot be asked is left out."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + CHECK_INTERVAL
        try:
            total, free = self._usage(self._path)
        except OSError:
            return
        limit = least_free(total)
        if free < limit and (self._reported is None or free <= self._reported // 2):
            self._reported = free
            self._reporter.disk_runs_full(free, total)
        elif self._reported is not None and free >= limit * ENOUGH:
            self._reported = None
            self._reporter.disk_has_space(free)


def least_free(total: int) -> int:
    """The bytes below which a disk of that size is reported."""
    return min(max(total // LEAST_SHARE, LEAST_FREE), MOST_FREE)
