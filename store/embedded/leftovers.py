"""PostgreSQL processes that an earlier keeper or version of Tidemark left running in a data directory."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from store.embedded.errors import CannotStart
from store.embedded.layout import Layout

PATIENCE = 60.0  # seconds for a server to stop
INTERVAL = 0.05  # seconds between two checks

# A file of earlier versions of Tidemark: the list of processes that use the server.
_EARLIER_HOLDERS = ".handle_pids.json"


def clear_leftovers(layout: Layout) -> None:
    """Stops PostgreSQL processes that still run there, and removes the pid file. The caller holds the keeper's lock.

    After a kill of the postmaster its other processes still run for a short time, and after a kill of a keeper the
    postmaster does: a new server cannot start beside them. Raises CannotStart if they do not end, or if an earlier
    version of Tidemark still uses its server.
    """
    if not layout.pid_file.exists():
        return
    postmaster = _postmaster(layout)
    running = _running(layout, postmaster)
    if running:
        _refuse_while_used(layout)
        if postmaster in running:
            os.kill(postmaster, signal.SIGINT)
        if not _gone(layout, postmaster, PATIENCE):
            for pid in _running(layout, postmaster):
                os.kill(pid, signal.SIGKILL)
            if not _gone(layout, postmaster, PATIENCE):
                raise CannotStart(f"an earlier server in {layout.data} does not end (process {running[0]})")
    # Its process id can belong to another process now, and PostgreSQL would take that one for a running server.
    layout.pid_file.unlink(missing_ok=True)
    (layout.data / _EARLIER_HOLDERS).unlink(missing_ok=True)


def _postmaster(layout: Layout) -> int:
    lines = layout.pid_file.read_text().splitlines()
    return int(lines[0]) if lines and lines[0].strip().isdecimal() else 0


def _running(layout: Layout, postmaster: int) -> list[int]:
    """The PostgreSQL processes whose current folder is the data directory."""
    if not Path("/proc/self").exists():
        found = subprocess.run(
            ["ps", "-o", "comm=", "-p", str(postmaster)], capture_output=True, text=True, check=False
        )
        return [postmaster] if postmaster and "postgres" in found.stdout else []
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _is_ours(entry, layout)
    ]


def _is_ours(process: Path, layout: Layout) -> bool:
    try:
        return (process / "comm").read_text().startswith("postgres") and (process / "cwd").samefile(layout.data)
    except OSError:  # the process has ended, or belongs to another user
        return False


def _gone(layout: Layout, postmaster: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while _running(layout, postmaster):
        if time.monotonic() > end:
            return False
        time.sleep(INTERVAL)
    return True


def _refuse_while_used(layout: Layout) -> None:
    try:
        listed = json.loads((layout.data / _EARLIER_HOLDERS).read_text() or "[]")
    except (OSError, ValueError):
        return
    for pid in listed:
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and b"python" in command.read_bytes():
            raise CannotStart(f"an earlier version of Tidemark uses the server in {layout.data}: stop process {pid}")
