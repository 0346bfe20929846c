"""Writes results to the database: in batches, and again until the database has accepted them."""

import logging
import random
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta

from notifier.in_flight import InFlight
from notifier.metrics import Metrics
from notifier.results import Result, Return
from runtime.actions import LogAction
from runtime.backoff import Backoff
from store.deliveries import leases
from store.deliveries import results as delivery_results
from store.deliveries.claims import Claim
from store.deliveries.results import AttemptRecord
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import LOCK_TIMEOUT, unavailable

BATCH_LIMIT = 200  # results in one transaction
SMALL_BATCH = 20  # results that are written together, however few are in flight
TRIES_ALONE = 3  # of a result that was refused with its batch. By then a deadlock is over, and a new partition exists

logger = logging.getLogger(__name__)


class Recorder:
    """Writes the results of what is in flight: those that were added while the previous batch was being written.

    So a slow database makes batches larger, not the queue longer. The transaction that writes a batch also claims
    deliveries for the slots that the batch frees, which saves the locks of the endpoints, a commit and several round
    trips.
    """

    def __init__(self, database: Database, in_flight: InFlight, metrics: Metrics, randomness: random.Random) -> None:
        self._database = database
        self._in_flight = in_flight
        self._results = in_flight.results
        self._metrics = metrics
        self._randomness = randomness
        self._claimed: list[Claim] = []  # claims whose attempts have not begun

    async def run(self) -> None:
        """Writes results until it is cancelled; call it once."""
        backoff = Backoff()
        while True:
            await self._results.wait()
            try:
                while len(self._results):
                    await self._write_batch()
                    backoff.reset()
                self._begin_claimed()
            except DatabaseUnavailable as error:
                # The results stay in the queue: their attempts were made. When a lease ends meanwhile, the receiver
                # only gets the notification once more.
                self._in_flight.suspect_orphans(error)
                logger.warning(
                    "cannot record %d results yet: %s",
                    len(self._results),
                    error,
                    extra={"action": LogAction.RECORD_DELAYED},
                )
                await backoff.sleep()

    def _begin_claimed(self) -> None:
        """Begins the attempts of what was claimed with the previous batch.

        To begin all of them takes the event loop longer than the database may wait for the next batch. So the next
        batch is sent first, and the database executes it while the attempts begin.
        """
        claimed, self._claimed = self._claimed, []
        self._in_flight.begin(claimed)

    def _batch_limit(self) -> int:
        """Half of what is in flight: the database works on one half while the receivers work on the other.

        If all results were written together, all slots would be free together, and the database and the receivers
        would wait for each other in turn.
        """
        return min(max(self._in_flight.count // 2, SMALL_BATCH), BATCH_LIMIT)

    async def _write_batch(self) -> None:
        # In the order of ids, so that two notifiers write rows and pages in the same order.
        batch = sorted(self._results.first(self._batch_limit()), key=_key)
        locked: list[Result] = []
        last: DatabaseUnavailable | None = None
        try:
            await self._write(batch, with_claims=True)
        except DatabaseUnavailable as error:
            self._begin_claimed()
            if not error.failure.contained:
                raise
            # A lock that one result needs must delay that result only.
            last = error
            locked = await self._write_one_by_one(batch)
        except Exception:
            self._begin_claimed()
            if len(batch) > 1:
                logger.exception(
                    "a batch of results was refused; writing them one by one",
                    extra={"action": LogAction.RECORD_SPLIT},
                )
            locked = await self._write_one_by_one(batch)
        if locked:
            self._results.move_back(locked)
            raise last or unavailable(LOCK_TIMEOUT)

    async def _write_one_by_one(self, batch: Sequence[Result]) -> list[Result]:
        """Writes each result on its own, so that one that the database refuses does not delay the others.

        Returns those that the database may accept later, because another transaction holds the lock of their
        endpoint.
        """
        later: list[Result] = []
        locked: set[tuple[int, str]] = set()
        # A transaction of the batch may have written some of them before another was refused.
        for result in self._results.still_waiting(batch):
            endpoint = result.claim.organization_id, result.claim.endpoint_id
            if endpoint in locked:
                later.append(result)
                continue
            if not await self._write_alone(result):
                later.append(result)
                locked.add(endpoint)
        return later

    async def _write_alone(self, result: Result) -> bool:
        """Writes one result, or gives it up when the database refuses it TRIES_ALONE times.

        False: another transaction holds the lock of its endpoint. Raises DatabaseUnavailable.
        """
        for attempt in range(1, TRIES_ALONE + 1):
            try:
                await self._write([result])
                break
            except DatabaseUnavailable as error:
                if not error.failure.contained:
                    raise
                return False
            except Exception:
                if attempt == TRIES_ALONE:
                    logger.exception(
                        "a result cannot be recorded; its delivery is attempted again when its lease ends",
                        extra={"action": LogAction.RECORD_REFUSED, **result.claim.log_fields()},
                    )
                    self._finish([result])
        return True

    async def _write(self, batch: Sequence[Result], *, with_claims: bool = False) -> None:
        """Writes a batch; `with_claims` it also claims for the slots that the batch frees."""
        records = [result for result in batch if isinstance(result, AttemptRecord)]
        returns: dict[timedelta, list[Return]] = {}
        for result in batch:
            if isinstance(result, Return):
                returns.setdefault(result.delay, []).append(result)
        if records:
            await self._record(records, with_claims=with_claims and not returns)
        for delay, given_back in returns.items():
            async with self._database.transaction() as connection:
                await leases.release(connection, [one.claim for one in given_back], delay=delay)
            self._metrics.claims_returned += len(given_back)
            self._finish(given_back)

    async def _record(self, records: Sequence[AttemptRecord], *, with_claims: bool) -> None:
        """Writes the results of attempts in one transaction, with a claim if it is `with_claims`."""
        done = [record.claim for record in records]
        with self._in_flight.reserve(done) if with_claims else nullcontext() as request:
            async with self._database.transaction() as connection:
                async with delivery_results.sending(connection, records, request) as sent:
                    self._begin_claimed()
                recorded = await delivery_results.read_recorded(connection, sent, self._randomness)
        # The reserved slots are free again: nothing may be awaited before the claims have taken them.
        full = request is not None and len(recorded.claims or ()) == request.limit
        self._finish(records, recorded.claims, full=full)
        for record in _missing(records, recorded.written):
            self._metrics.results_fenced += 1
            logger.warning(
                "the lease was taken over during the attempt; its result is dropped",
                extra={"action": LogAction.RECORD_FENCED, **record.claim.log_fields()},
            )

    def _finish(
        self, results: Sequence[Result], claims: Sequence[Claim] | None = None, *, full: bool = False
    ) -> None:
        """Removes results from the queue right after their commit: a later failure must not write them again.

        claims: those of the same transaction; None when it made no claim. full: the claim took all that it requested,
        so that more may be due.
        """
        self._results.remove(results)
        if claims:
            self._in_flight.take(claims)
            self._claimed += claims
        self._in_flight.finish([result.claim for result in results], more_may_be_due=claims is None or full)


def _key(result: Result) -> tuple[int, str]:
    return result.claim.organization_id, result.claim.delivery_id


def _missing(records: Sequence[AttemptRecord], written: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    there = set(map(id, written))
    return [record for record in records if id(record) not in there]
