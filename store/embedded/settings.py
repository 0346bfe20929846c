"""The settings of the embedded server: those that are recommended for its machine, and its own.

PostgreSQL's defaults are for small machines. These are for a service with a few replicas on one machine.
"""

import os
import shutil
from pathlib import Path

from store.postgres.recommended_settings import Machine, recommended

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2, and of version 1

_OWN = {
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def machine_of(directory: Path, cgroup: Path = _CGROUP) -> Machine:
    """The machine, and the file system of an existing directory. cgroup: where the kernel shows the container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_limit(cgroup / name) for name in _CGROUP_LIMITS]
    return Machine(min([memory, *filter(None, limits)]), shutil.disk_usage(directory).total)


def settings_for(machine: Machine) -> dict[str, str]:
    """The settings by their names."""
    return {**_OWN, **{setting.name: setting.value for setting in recommended(machine)}}


def _limit(file: Path) -> int | None:
    """The limit that a file of the kernel states, in bytes; None if there is none."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
