"""The keeper: a separate process that starts PostgreSQL, is its parent, and stops it after the last holder.

A holder starts it as `python -m store.embedded.keeper DIRECTORY KEEPER READY`. KEEPER is a descriptor with the
keeper's lock. READY is a descriptor of a pipe, to which the keeper writes one JSON object: {} once PostgreSQL accepts
connections, or {"error": "…"}. If PostgreSQL ends by itself, the keeper ends too; a holder then finds the lock free
and starts another keeper.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from store.embedded import binaries, cluster, locks
from store.embedded.errors import CannotStart
from store.embedded.layout import PORT, SOCKET_FOLDER, Layout
from store.embedded.leftovers import clear_leftovers
from store.embedded.server_user import server_user

FAST_STOP = 60.0  # seconds for a stop that writes all data to disk
IMMEDIATE_STOP = 10.0  # seconds for a stop without that; the next start recovers
POLLING_INTERVAL = 0.02  # seconds between two checks whether PostgreSQL is ready

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def main() -> None:
    """Runs one server until it ends or no holder is left."""
    layout = Layout(Path(sys.argv[1]))
    keeper_lock, ready = int(sys.argv[2]), int(sys.argv[3])
    # Signals of the terminal are for the holders.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    log = layout.open_log()
    os.dup2(log, 2)
    try:
        postgres = _start(layout, log)
    except (CannotStart, OSError) as error:
        _answer(ready, {"error": str(error)})
        return
    signal.signal(signal.SIGTERM, lambda *_: postgres.send_signal(signal.SIGINT))
    threading.Thread(target=_stop_after_last_holder, args=(layout, postgres), daemon=True).start()
    while postgres.poll() is None and not _is_ready(layout, postgres.pid):
        time.sleep(POLLING_INTERVAL)
    if postgres.poll() is None:
        _answer(ready, {})
    else:
        words = "; ".join(layout.last_words(3))
        _answer(ready, {"error": f"PostgreSQL ended with exit code {postgres.returncode}: {words}"})
    postgres.wait()
    # Before the holders' lock, which the end of the process releases: a new holder that waits for that lock must not
    # find this keeper running.
    os.close(keeper_lock)


def _start(layout: Layout, log: int) -> "subprocess.Popen[bytes]":
    user = server_user(layout)
    clear_leftovers(layout)
    installation = binaries.installation(layout, user)
    cluster.ensure(layout, user, installation)
    return subprocess.Popen(
        [
            installation / "bin" / "postgres",
            *("-D", cluster.working_path(layout, user)),
            *("-p", str(PORT)),
            *("-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={SOCKET_FOLDER}"),
            *("-c", "unix_socket_permissions=0700"),
        ],
        cwd=layout.data,
        env=cluster.environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=_ending_with_parent(os.getpid()),
        **user.popen_options,
    )


def _ending_with_parent(parent: int) -> Callable[[], None] | None:
    """A function that PostgreSQL's process runs first: it requests a SIGINT (a fast stop) if its keeper is killed."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind() -> None:
        prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:  # the keeper was killed before the request
            os._exit(1)

    return bind


def _is_ready(layout: Layout, pid: int) -> bool:
    try:
        lines = layout.pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _stop_after_last_holder(layout: Layout, postgres: "subprocess.Popen[bytes]") -> None:
    # The descriptor, and with it the lock, stays open until this process has ended.
    locks.exclusive(locks.open_lock(layout, locks.HOLDERS))
    for number, patience in ((signal.SIGINT, FAST_STOP), (signal.SIGQUIT, IMMEDIATE_STOP), (signal.SIGKILL, None)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            postgres.send_signal(number)
            postgres.wait(patience)
            return


def _answer(ready: int, answer: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # the holder that asked may be gone
        os.write(ready, json.dumps(answer).encode())
    os.close(ready)


if __name__ == "__main__":
    main()
