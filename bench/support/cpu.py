"""CPU time of processes: what an event costs, whatever else the machine is busy with. Linux only."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def available() -> bool:
    """Whether this system tells."""
    return (_PROC / "self" / "stat").exists()


def seconds(*pids: int) -> float:
    """The CPU time that the processes have used so far; one that has ended counts nothing."""
    ticks = sum(int(ticks) for pid in pids for ticks in _fields(pid)[11:13])  # user and system
    return ticks / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [child for child in _running() if _fields(child)[1:2] == [str(pid)]]


def _running() -> Iterator[int]:
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            yield int(folder.name)


def _fields(pid: int) -> list[str]:
    """What /proc/PID/stat says after the process's name, which may hold blanks itself."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
