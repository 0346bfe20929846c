"""Whether the database of the notifier accepts writes. Without writes no attempt could be recorded."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.actions import LogAction
from store.postgres.probe import Probe, ProbeIntervals

logger = logging.getLogger(__name__)


class Readiness:
    """The result of the last probe of the database."""

    def __init__(self) -> None:
        self.takes_writes = False

    def take(self, problem: str | None) -> None:
        """Takes the result of a probe: why the database cannot be used, or None."""
        if problem is not None and self.takes_writes:
            logger.error("the database is not usable: not ready (%s)", problem, extra={"action": LogAction.NOT_READY})
        if problem is None and not self.takes_writes:
            logger.info("the database takes writes: ready", extra={"action": LogAction.READY})
        self.takes_writes = problem is None


@asynccontextmanager
async def followed(url: str, intervals: ProbeIntervals) -> AsyncIterator[Readiness]:
    """Probes the database while the block runs, on a connection of its own."""
    readiness = Readiness()
    probe = Probe(url, intervals)
    # The worker polls every second, so the probe has to find out only whether writes succeed.
    following = probe.following(readiness.take, reads=False)
    following.start()
    try:
        yield readiness
    finally:
        await following.stop()
        await probe.close()
