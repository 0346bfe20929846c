"""CPU time of processes, which does not depend on what else the machine does. Linux only."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def available() -> bool:
    """Whether this system reports it."""
    return (_PROC / "self" / "stat").exists()


def seconds(*pids: int) -> float:
    """The CPU time of the processes so far; 0 for a process that has ended."""
    ticks = sum(int(ticks) for pid in pids for ticks in _fields(pid)[11:13])  # user and system
    return ticks / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The running child processes of a process."""
    return [child for child in _running() if _fields(child)[1:2] == [str(pid)]]


def tree_seconds(pid: int) -> float:
    """The CPU time so far of a process, its running children, and those of its children that have ended.

    The kernel adds the time of a child to its parent when the parent takes note of its end, so nothing is lost of the
    processes of a PostgreSQL that end between two readings. `pid`: its postmaster.
    """
    running = seconds(*children(pid))
    ticks = sum(int(ticks) for ticks in _fields(pid)[11:15])  # its own, and those of children that have ended
    return running + ticks / os.sysconf("SC_CLK_TCK")


def parent(pid: int) -> tuple[str, int] | None:
    """The name of a running process of this machine, and its parent; None if there is none of that number."""
    try:
        name, _, fields = (_PROC / str(pid) / "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    return name, int(fields.split()[1])


class Meter:
    """The CPU time that processes use from now on, and all children of `parent`, also those that start later.

    Children that end meanwhile are left out.
    """

    def __init__(self, parent: int, *pids: int) -> None:
        self._parent = parent
        self._pids = pids
        self._before = self._now()

    def used(self) -> float:
        """The seconds so far; 0 if the system does not report it."""
        return sum(now - self._before.get(pid, 0.0) for pid, now in self._now().items())

    def _now(self) -> dict[int, float]:
        if not available():
            return {}
        return {pid: seconds(pid) for pid in (*self._pids, *children(self._parent))}


def _running() -> Iterator[int]:
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            yield int(folder.name)


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name of the process, which may contain blanks."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
