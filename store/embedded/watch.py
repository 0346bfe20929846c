"""Restarts an embedded server that ends while this process holds it, and watches the disk of its data."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from runtime.actions import LogAction
from runtime.backoff import Backoff
from store.embedded.disk import MB, DiskReporter, DiskWatch, Usage, usage_of
from store.embedded.errors import CannotStart
from store.embedded.holder import Holder

INTERVAL = 0.5  # seconds between two checks
FIRST_PAUSE = 1.0  # seconds before a restart; doubled after each
LONGEST_PAUSE = 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds of running after which the next pause is FIRST_PAUSE again

logger = logging.getLogger(__name__)


class DatabaseReporter(DiskReporter, Protocol):
    """Reports what happens to the server and its disk. The watching thread calls it."""

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        """The server ended or could not start, and will start in `pause` seconds. last_words: the end of its log."""

    def database_runs_again(self) -> None:
        """The server accepts connections again."""


class LogReporter:
    """Reports to the log of the process."""

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        """Logs an error with the end of the server's log."""
        logger.error(
            "the embedded PostgreSQL ended; starting it again in %g s. Its last words:\n%s",
            pause,
            "\n".join(last_words),
            extra={"action": LogAction.DATABASE_ENDED},
        )

    def database_runs_again(self) -> None:
        """Logs one line."""
        logger.warning("the embedded PostgreSQL runs again", extra={"action": LogAction.DATABASE_STARTED})

    def disk_runs_full(self, free: int, total: int) -> None:
        """Logs a warning."""
        logger.warning(
            "the disk of the embedded PostgreSQL runs full: %d of %d MB are free. When it is full, nothing can be"
            " stored until there is space",
            free // MB,
            total // MB,
            extra={"action": LogAction.DISK_RUNS_FULL, "free": free, "total": total},
        )

    def disk_has_space(self, free: int) -> None:
        """Logs one line."""
        logger.info(
            "the disk of the embedded PostgreSQL has space again: %d MB are free",
            free // MB,
            extra={"action": LogAction.DISK_HAS_SPACE, "free": free},
        )


def watch(holder: Holder, reporter: DatabaseReporter, usage: Usage = usage_of) -> None:
    """Watches the server in a thread that ends with the process. usage: of the disk."""
    disk = DiskWatch(holder.layout.data, reporter, usage)
    threading.Thread(target=_watch, args=(holder, reporter, disk), name="embedded database", daemon=True).start()


def _watch(holder: Holder, reporter: DatabaseReporter, disk: DiskWatch) -> None:
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random_part=0.0)
    since = time.monotonic()
    while not holder.closed:
        if not holder.ended():
            disk.check()
            time.sleep(INTERVAL)
            continue
        if time.monotonic() - since > HEALTHY_AFTER:
            backoff.reset()
        last_words: list[str] = holder.last_words()
        while not holder.closed:
            pause = backoff.next()
            reporter.database_ended(last_words, pause)
            time.sleep(pause)
            try:
                holder.restart()
            except (CannotStart, OSError) as error:
                last_words = [str(error)]
                continue
            if not holder.closed:
                reporter.database_runs_again()
            since = time.monotonic()
            break
