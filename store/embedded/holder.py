"""A process that uses the embedded server: it joins a running server or starts one, and releases it at its end."""

import atexit
import json
import logging
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from runtime.actions import LogAction
from store.embedded import cluster, locks
from store.embedded.errors import CannotStart
from store.embedded.layout import PORT, Layout

MAX_SOCKET_PATH = 107  # bytes that the kernel allows
SLOW_START = 10.0  # seconds after which a slow start is logged, such as a recovery after a crash
STOP_PATIENCE = 75.0  # seconds that the last holder waits for the server to stop
POLLING_INTERVAL = 0.02  # seconds
OTHERS_AFTER = 2.0  # seconds after which a server that still runs counts as used by others

# Paths that need no escapes in a URL: programs that write URLs escape a blank in different ways.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
_SOCKET_NAME = f".s.PGSQL.{PORT}"

logger = logging.getLogger(__name__)


class Holder:
    """This process as a holder of the server of one data directory.

    url: of the database; the same after a restart.
    """

    def __init__(self, directory: Path) -> None:
        """Joins the server or starts it. Raises CannotStart."""
        self.layout = Layout(directory.absolute())
        self._links: Path | None = None
        self._process = os.getpid()
        self._mutex = threading.Lock()
        self.layout.prepare()
        self._holders = locks.open_lock(self.layout, locks.HOLDERS)
        self._closed = False
        self.restarts = 0  # by this process, after it had ended
        try:
            with locks.starting(self.layout):
                locks.shared(self._holders)
                self._ensure_kept()
            self.url = f"postgresql://{cluster.SUPERUSER}@/postgres?host={self._socket_folder()}"
        except BaseException:
            os.close(self._holders)
            raise

    @property
    def closed(self) -> bool:
        """Whether this process has released the server."""
        return self._closed

    def ended(self) -> bool:
        """Whether the server or its keeper has ended."""
        return not locks.is_kept(self.layout)

    def restart(self) -> None:
        """Starts the server again, unless another holder has done so. Raises CannotStart."""
        with self._mutex:
            if not self._closed:
                with locks.starting(self.layout):
                    self._ensure_kept()
                self.restarts += 1

    def last_words(self, lines: int = 15) -> list[str]:
        """The end of PostgreSQL's log."""
        return self.layout.last_words(lines)

    def close(self) -> None:
        """Releases the server. The last holder waits until the server has stopped."""
        if self._closed or os.getpid() != self._process:  # a fork of this process does not hold the server
            return
        with self._mutex:
            self._closed = True
        locks.release(self._holders)
        end = time.monotonic() + STOP_PATIENCE
        others = time.monotonic() + OTHERS_AFTER
        while locks.is_kept(self.layout) and time.monotonic() < end:
            # When the keeper has this lock exclusively, it keeps it. Other holders share it.
            if locks.try_shared(self._holders):
                locks.release(self._holders)
                if self._held_by_others() or time.monotonic() > others:
                    break
            time.sleep(POLLING_INTERVAL)
        os.close(self._holders)
        if self._links is not None:
            shutil.rmtree(self._links, ignore_errors=True)

    def _held_by_others(self) -> bool:
        if locks.try_exclusive(self._holders):
            locks.release(self._holders)
            return False
        # Another holder has the lock, or the keeper has just taken it.
        if not locks.try_shared(self._holders):
            return False
        locks.release(self._holders)
        return True

    def _ensure_kept(self) -> None:
        """Starts a keeper unless one runs, and waits until its server is ready."""
        if (keeper_lock := locks.claim_keeper(self.layout)) is None:
            return
        reading, writing = os.pipe()
        try:
            try:
                keeper = self._start_keeper(keeper_lock, writing)
            finally:
                os.close(keeper_lock)
                os.close(writing)
            threading.Thread(target=keeper.wait, daemon=True).start()  # leaves no zombie process
            if not select.select([reading], [], [], SLOW_START)[0]:
                logger.warning(
                    "the embedded PostgreSQL takes its time to start; its log is %s",
                    self.layout.log,
                    extra={"action": LogAction.DATABASE_SLOW_START},
                )
            answer = os.read(reading, 65_536)
        finally:
            os.close(reading)
        if not answer:
            raise CannotStart(f"its keeper ended early; the log is {self.layout.log}")
        if error := json.loads(answer).get("error"):
            raise CannotStart(error)

    def _start_keeper(self, keeper_lock: int, ready: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "store.embedded.keeper",
                str(self.layout.directory),
                str(keeper_lock),
                str(ready),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # The keeper writes its errors to the log of the server, but not before it has opened the log.
            stderr=subprocess.DEVNULL if sys.stderr is None else None,
            pass_fds=(keeper_lock, ready),
            # Signals of the terminal must reach only the holders.
            start_new_session=True,
        )

    def _socket_folder(self) -> Path:
        """A path to the folder of the socket that is short and plain enough for all clients."""
        folder = self.layout.socket_folder
        if _fits(folder):
            return folder
        for folder_of_links in (tempfile.gettempdir(), "/tmp"):
            self._links = Path(tempfile.mkdtemp(prefix="tidemark-", dir=folder_of_links))  # mode 0700
            link = self._links / "socket"
            link.symlink_to(folder)
            if _fits(link):
                return link
            shutil.rmtree(self._links)
        raise CannotStart(f"the path {folder} is too long for a socket, and so is that of the temporary folder")


def _fits(folder: Path) -> bool:
    path = str(folder / _SOCKET_NAME)
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH and _PLAIN.fullmatch(path) is not None


_held: dict[Path, Holder] = {}


def hold(directory: Path) -> Holder:
    """Holds the server of `directory` until the process ends. Raises CannotStart."""
    directory = directory.absolute()
    if directory not in _held:
        holder = Holder(directory)
        _held[directory] = holder
        atexit.register(_release, directory)
    return _held[directory]


def held() -> Holder | None:
    """The server that this process holds; None if it holds none."""
    return next(iter(_held.values()), None)


def start(directory: Path) -> str:
    """Starts the server of `directory`, or joins it if it runs, and returns its URL. Raises CannotStart."""
    return hold(directory).url


def _release(directory: Path) -> None:
    if (holder := _held.pop(directory, None)) is not None:
        holder.close()
