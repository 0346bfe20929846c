"""The settings of the embedded server, by the memory and the disk of the machine.

PostgreSQL's defaults are for small machines. These are for a service with a few replicas on one machine.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

MB, GB = 1024**2, 1024**3

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2, and of version 1

_FIXED = {
    "max_connections": "200",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",  # compilation takes longer than any statement of Tidemark
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Machine:
    """What the server can use, in bytes. memory: of the machine or of its container. disk: of the file system."""

    memory: int
    disk: int


def machine_of(directory: Path, cgroup: Path = _CGROUP) -> Machine:
    """The machine, and the file system of an existing directory. cgroup: where the kernel shows the container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_limit(cgroup / name) for name in _CGROUP_LIMITS]
    return Machine(min([memory, *filter(None, limits)]), shutil.disk_usage(directory).total)


def settings_for(machine: Machine) -> dict[str, str]:
    """The settings by their names.

    The buffers hold the newest part of the indexes, which every commit reads; the server and the notifier need the
    rest of the memory. The log of changes may take a twentieth of the disk: the larger it is, the fewer checkpoints
    write whole pages into it.
    """
    log = _within(machine.disk // 20, 256 * MB, 16 * GB)
    return {
        **_FIXED,
        "shared_buffers": _megabytes(_within(machine.memory // 4, 32 * MB, 8 * GB)),
        "effective_cache_size": _megabytes(_within(machine.memory // 2, 64 * MB, 64 * GB)),
        "maintenance_work_mem": _megabytes(_within(machine.memory // 32, 16 * MB, GB)),
        "max_wal_size": _megabytes(log),
        "min_wal_size": _megabytes(max(log // 8, 80 * MB)),
    }


def _within(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


def _megabytes(size: int) -> str:
    return f"{size // MB}MB"


def _limit(file: Path) -> int | None:
    """The limit that a file of the kernel states, in bytes; None if there is none."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
