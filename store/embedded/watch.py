"""Starts an embedded server again that ended while it is held."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from runtime.actions import LogAction
from runtime.backoff import Backoff
from store.embedded.errors import CannotStart
from store.embedded.holder import Holder

INTERVAL = 0.5  # seconds between two looks
FIRST_PAUSE = 1.0  # seconds before a start; doubled from time to time
LONGEST_PAUSE = 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds of running after which the next pause is the first again

logger = logging.getLogger(__name__)


class Reporter(Protocol):
    """Who says what happens to the server. Called in the thread that watches."""

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        """It ended, or could not start; `last_words` are the end of its log. In `pause` seconds it is started."""

    def database_runs_again(self) -> None:
        """It takes connections."""


class LogReporter:
    """Reports to the log of the process."""

    def database_ended(self, last_words: Sequence[str], pause: float) -> None:
        """An error, with the last words."""
        logger.error(
            "the embedded PostgreSQL ended; starting it again in %g s. Its last words:\n%s",
            pause,
            "\n".join(last_words),
            extra={"action": LogAction.DATABASE_ENDED},
        )

    def database_runs_again(self) -> None:
        """One line."""
        logger.warning("the embedded PostgreSQL runs again", extra={"action": LogAction.DATABASE_STARTED})


def watch(holder: Holder, reporter: Reporter) -> None:
    """Watches the server in a thread that ends with the process."""
    threading.Thread(target=_watch, args=(holder, reporter), name="embedded database", daemon=True).start()


def _watch(holder: Holder, reporter: Reporter) -> None:
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random_part=0.0)
    since = time.monotonic()
    while not holder.closed:
        if not holder.ended():
            time.sleep(INTERVAL)
            continue
        if time.monotonic() - since > HEALTHY_AFTER:
            backoff.reset()
        said: list[str] = holder.last_words()
        while not holder.closed:
            pause = backoff.next()
            reporter.database_ended(said, pause)
            time.sleep(pause)
            try:
                holder.restart()
            except (CannotStart, OSError) as error:
                said = [str(error)]
                continue
            if not holder.closed:
                reporter.database_runs_again()
            since = time.monotonic()
            break
