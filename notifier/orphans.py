"""Leases that the database holds for this notifier, and of which the notifier does not know: they are given back.

Two faults make such orphans. The answer to the commit of a claim is lost: the claim stands, and the notifier does not
attempt it. Or the database crashes and loses its last commits, since the queue's commits do not wait for the disk: a
lease that a result had ended is there again. Until it ends, an orphan takes a place in its endpoint's share of
deliveries in flight. Some orphans fill the share, and the endpoint gets nothing for the time of a lease.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from notifier.metrics import Metrics
from runtime.backoff import Backoff
from store.deliveries import results as delivery_results
from store.deliveries.results import Holdings
from store.postgres.database import Database, DatabaseUnavailable

# Seconds between one release and the next. A server that has lost the connection to its client may still commit what
# the client had sent, and a release before that commit finds nothing. After the last release the lease has to end.
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)

logger = logging.getLogger(__name__)


class OrphanedLeases:
    """Gives orphaned leases back, at once and some more times after each failure of the database."""

    def __init__(
        self,
        database: Database,
        holdings: Callable[[], Holdings],
        metrics: Metrics,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """holdings: what this notifier knows of its leases. pauses: seconds between releases after a failure."""
        self._database = database
        self._holdings = holdings
        self._metrics = metrics
        self._pauses = pauses
        self._losses = database.losses  # those that have been answered with a release
        self._done = 0  # releases since the last failure
        self._next: float | None = None  # the time of the next release, by the event loop's clock

    def suspect(self, error: DatabaseUnavailable) -> None:
        """Takes note of a failure; those that concern one transaction only leave no orphans."""
        if not error.failure.contained:
            self._begin()

    def due(self) -> bool:
        """Whether a release is due."""
        # Another task of the process may have met the failure: the pool is new then, and the worker meets none.
        if self._database.losses != self._losses:
            self._losses = self._database.losses
            self._begin()
        return self._next is not None and self._next <= asyncio.get_running_loop().time()

    async def release(self) -> int:
        """Gives orphaned leases back; returns how many. Stays due when the database is not available."""
        # Read before the transaction begins: what is claimed from here on is not among what may be released.
        holdings = self._holdings()
        try:
            async with self._database.transaction() as connection:
                number = await delivery_results.release_orphaned(connection, holdings)
        except Exception as error:
            # A lock that is held for long, or a fault of ours, must not keep the worker from everything else.
            if not isinstance(error, DatabaseUnavailable) or error.failure.contained:
                self._postpone()
            raise
        if number < delivery_results.RELEASE_LIMIT:
            self._postpone()
        if number:
            self._metrics.claims_returned += number
            logger.warning(
                "%d deliveries are due again: the notifier did not know that it had them",
                number,
                extra={"action": "lease.orphaned"},
            )
        return number

    async def release_last(self) -> None:
        """Releases for the last time, if there has been a failure; tries until the database answers."""
        backoff = Backoff()
        self.due()  # counts a failure that another task met during the drain
        while self._next is not None:
            try:
                await self.release()
                break
            except DatabaseUnavailable as error:
                logger.warning("leases cannot be given back yet: %s", error, extra={"action": "database.lost"})
                await backoff.sleep()
            except Exception:
                logger.exception("leases cannot be given back", extra={"action": "worker.failed"})
                break

    def _begin(self) -> None:
        """Plans a release for now, and those after it."""
        self._done = 0
        self._next = asyncio.get_running_loop().time()

    def _postpone(self) -> None:
        """Plans the next release; None after the last."""
        if self._done == len(self._pauses):
            self._next = None
        else:
            self._next = asyncio.get_running_loop().time() + self._pauses[self._done]
            self._done += 1
