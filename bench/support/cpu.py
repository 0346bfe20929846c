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
