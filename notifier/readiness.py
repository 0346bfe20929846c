"""Whether the notifier's database takes writes: one that only reads sends nothing that it could record."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.actions import LogAction
from store.postgres.probe import Probe

logger = logging.getLogger(__name__)


class Readiness:
    """What the last look at the database said."""

    def __init__(self) -> None:
        self.takes_writes = False

    def take(self, problem: str | None) -> None:
        """Takes note of one look: what keeps the database from being worked with, or None."""
        if problem is not None and self.takes_writes:
            logger.error(
                "the database cannot be worked with: not ready (%s)", problem, extra={"action": LogAction.NOT_READY}
            )
        if problem is None and not self.takes_writes:
            logger.info("the database takes writes: ready", extra={"action": LogAction.READY})
        self.takes_writes = problem is None


@asynccontextmanager
async def followed(url: str) -> AsyncIterator[Readiness]:
    """Looks at the database for as long as the block runs, on a connection of its own."""
    readiness = Readiness()
    probe = Probe(url)
    # The worker reads every second; what is left to learn is whether writes succeed.
    following = probe.following(readiness.take, reads=False)
    following.start()
    try:
        yield readiness
    finally:
        await following.stop()
        await probe.close()
