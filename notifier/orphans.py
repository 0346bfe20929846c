"""Orphaned leases: leases of this notifier in the database that the notifier does not know. It gives them back.

Two faults make orphans. The answer to the commit of a claim is lost: the claim stands, and the notifier does not
attempt it. Or the database crashes and loses its last commits, since the queue's commits do not wait for the disk: a
lease that a result had ended exists again. Until its lease ends, an orphan uses a place in its endpoint's share of
deliveries in flight. A few orphans fill the share, and then the endpoint gets nothing for the time of a lease.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from notifier.metrics import Metrics
from runtime.actions import LogAction
from runtime.backoff import Backoff
from store.deliveries import leases
from store.deliveries.leases import Holdings
from store.postgres.database import Database, DatabaseUnavailable

# Seconds between one release and the next. A server that has lost the connection to its client may still commit what
# the client had sent, and a release before that commit finds nothing. An orphan that appears after the last release
# stays until its lease ends.
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)

logger = logging.getLogger(__name__)


class OrphanedLeases:
    """Gives orphaned leases back after each failure of the database: immediately, and several times more."""

    def __init__(
        self,
        database: Database,
        holdings: Callable[[], Holdings],
        metrics: Metrics,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """holdings: the leases that this notifier knows. pauses: seconds between the releases after a failure."""
        self._database = database
        self._holdings = holdings
        self._metrics = metrics
        self._pauses = pauses
        self._losses = database.losses  # those after which releases have been planned
        self._done = 0  # releases since the last failure
        self._next: float | None = None  # the time of the next release, by the event loop's clock

    def suspect(self, error: DatabaseUnavailable) -> None:
        """Plans releases after a failure. A failure that concerns one transaction only leaves no orphans."""
        if not error.failure.contained:
            self._begin()

    def due(self) -> bool:
        """Whether a release is due."""
        self._plan_after_losses()
        return self._next is not None and self._next <= asyncio.get_running_loop().time()

    async def release(self) -> int:
        """Gives orphaned leases back; returns how many. A release stays due when the database is not available."""
        # Read before the transaction begins: a claim that is made later has a token beyond those that are released.
        holdings = self._holdings()
        try:
            async with self._database.transaction() as connection:
                number = await leases.release_orphaned(connection, holdings)
        except Exception as error:
            # A lock that is held for long, or a fault of Tidemark, must not keep the worker from its other work.
            if not isinstance(error, DatabaseUnavailable) or error.failure.contained:
                self._postpone()
            raise
        if number < leases.RELEASE_LIMIT:
            self._postpone()
        if number:
            self._metrics.claims_returned += number
            logger.warning(
                "%d orphaned leases were given back; their deliveries are due again",
                number,
                extra={"action": LogAction.LEASE_ORPHANED},
            )
        return number

    async def release_last(self) -> None:
        """Releases for the last time, if there was a failure; tries until the database answers."""
        backoff = Backoff()
        self._plan_after_losses()
        while self._next is not None:
            try:
                await self.release()
                break
            except DatabaseUnavailable as error:
                logger.warning(
                    "leases cannot be given back yet: %s", error, extra={"action": LogAction.DATABASE_LOST}
                )
                await backoff.sleep()
            except Exception:
                logger.exception("leases cannot be given back", extra={"action": LogAction.WORKER_FAILED})
                break

    def _plan_after_losses(self) -> None:
        """Plans releases after failures that other tasks of the process met.

        A failure that another task meets renews the pool, so that the worker itself may meet none.
        """
        if self._database.losses != self._losses:
            self._losses = self._database.losses
            self._begin()

    def _begin(self) -> None:
        """Plans a release for now, and those after it."""
        self._done = 0
        self._next = asyncio.get_running_loop().time()

    def _postpone(self) -> None:
        """Plans the next release, unless this was the last."""
        if self._done == len(self._pauses):
            self._next = None
        else:
            self._next = asyncio.get_running_loop().time() + self._pauses[self._done]
            self._done += 1
