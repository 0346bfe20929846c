"""Memory of processes. Linux only."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """The memory of a process in bytes.

    resident: all that it has in use. proportional: the same, but only its part of memory that it shares with others.
    """

    resident: int
    proportional: int


def of(pid: int) -> Memory | None:
    """The memory of a running process; None if the system does not report it."""
    file = Path(f"/proc/{pid}/smaps_rollup")
    if not file.exists():
        return None
    sizes = {}
    for line in file.read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    return Memory(sizes["Rss"], sizes["Pss"])
