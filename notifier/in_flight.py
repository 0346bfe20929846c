"""What one notifier has in flight: each claim from the transaction that makes it to the one that ends it."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta

from notifier.attempts import RETURN_DELAY, Attempter
from notifier.hints import Hints
from notifier.late_bodies import LateBodies
from notifier.orphans import OrphanedLeases
from notifier.results import Results, Return
from notifier.slots import Slots
from runtime import log_fields
from runtime.actions import LogAction
from store.deliveries.claims import Claim, ClaimRequest
from store.postgres.database import DatabaseUnavailable

logger = logging.getLogger(__name__)


class InFlight:
    """The claims of one notifier. The worker and the recorder both make claims, and both share this object.

    A claim passes through these steps:

    1. `reserve`: slots are kept for it while its transaction runs. The worker claims after a fan-out and when
       deliveries are due, the recorder for the slots that a batch of results frees.
    2. `take`: the transaction has committed, and the claim has a slot.
    3. `begin`: a task of its own attempts it, and adds the result to `results`.
    4. `finish`: the recorder has written the result, and the slot is free again.
    """

    def __init__(
        self, slots: Slots, attempter: Attempter, orphans: OrphanedLeases, hints: Hints, late: LateBodies
    ) -> None:
        self.results = Results()
        self._slots = slots
        self._attempter = attempter
        self._orphans = orphans
        self._hints = hints
        self._late = late
        self._draining = False
        self._attempts: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many claims there are whose result is not written, whether their attempts have ended or not."""
        return self._slots.taken

    @contextlib.contextmanager
    def reserve(self, done: Sequence[Claim] = ()) -> Iterator[ClaimRequest | None]:
        """What to claim in the transaction of the block, in which the slots of `done` become free.

        None when there is no free slot or the notifier drains.
        """
        if self._draining:
            yield None
            return
        with self._slots.reserve(done) as request:
            yield request

    def take(self, claims: Sequence[Claim]) -> None:
        """Gives slots to claims that have been committed. Nothing may be awaited between their `reserve` and this."""
        self._slots.take(claims)

    def begin(self, claims: Sequence[Claim]) -> None:
        """Begins the attempts of claims that have slots."""
        for claim in claims:
            task = asyncio.create_task(self._attempt(claim), name=f"attempt {claim.delivery_id}")
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)

    def finish(self, done: Sequence[Claim], *, more_may_be_due: bool) -> None:
        """Frees the slots of claims whose result is written; wakes the worker if more deliveries may be due."""
        self._slots.free(done)
        if more_may_be_due:
            self._hints.deliveries_due()

    def suspect_orphans(self, error: DatabaseUnavailable) -> None:
        """Plans a release of orphaned leases after a failure of the database that may have left some."""
        self._orphans.suspect(error)

    def stop_claiming(self) -> None:
        """From now on `reserve` gives nothing: the notifier drains."""
        self._draining = True

    async def drain(self, timeout: float) -> None:
        """Waits up to `timeout` seconds until nothing is in flight.

        Attempts that take more than three quarters of the time are cancelled, so that their results can be written.
        """
        logger.info("draining %d deliveries", self.count, extra={"action": LogAction.DRAIN})
        if await self._slots.all_free_within(timeout * 0.75):
            return
        for task in self._attempts:
            task.cancel()
        if not await self._slots.all_free_within(timeout * 0.25):
            logger.warning(
                "%d deliveries are left to their leases", self.count, extra={"action": LogAction.DRAIN_INCOMPLETE}
            )

    async def cancel(self) -> None:
        """Cancels every attempt, and waits until all of them have ended."""
        attempts = list(self._attempts)
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        await self._late.stop()

    async def _attempt(self, claim: Claim) -> None:
        """Makes one attempt and adds its result, whatever happens."""
        log_fields.begin(claim)
        try:
            if claim.body is None:
                await self._late.find(claim)
            self.results.add(await self._attempter.attempt(claim))
        except asyncio.CancelledError:
            # Cut off by a drain. Whether the receiver has the notification is unknown, so it is sent again.
            self.results.add(Return(claim, timedelta(0)))
            raise
        except Exception:
            logger.exception("an attempt failed by a fault of Tidemark", extra={"action": LogAction.ATTEMPT_FAILED})
            self.results.add(Return(claim, RETURN_DELAY))
