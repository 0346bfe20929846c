"""Writes results to the database: in batches, and again and again until the database has taken them."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

from notifier.metrics import Metrics
from runtime.backoff import Backoff
from store.deliveries import results as delivery_results
from store.deliveries.queue import Claim, Order
from store.deliveries.results import AttemptRecord
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import LOCK_TIMEOUT, unavailable

BATCH_LIMIT = 200  # results in one transaction
SMALL_BATCH = 20  # results that are written together, however few are in flight
TRIES_ALONE = 3  # of a result that was refused with its batch: a deadlock or a day made meanwhile are over by then

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Return:
    """A claim to give back without an attempt, because the fault is ours."""

    claim: Claim
    delay: timedelta  # until the delivery is due again


@dataclass(frozen=True)
class Refill:
    """What was claimed in the transaction that wrote results."""

    claims: list[Claim]
    full: bool  # there was no room for more, so more may be due


Result = AttemptRecord | Return


class Recorder:
    """Takes results as they come and writes those that gathered while the previous batch was being written.

    A slow database thus makes batches larger, not the queue longer. Deliveries for the slots that a batch frees are
    claimed in the transaction that writes it, which saves the endpoints' locks, a commit and several round trips:
    `order` says what to claim, None for nothing, and keeps the slots for it while its block runs. `on_written` is
    told which claims are done with, and what was claimed with them; `begin` is to make their attempts, at a moment
    when the database has something to do. `in_flight` counts claims whose result is not written, be it there or not.
    `on_failure` is called with each failure of the database that ends a batch.
    """

    def __init__(
        self,
        database: Database,
        order: Callable[[Sequence[Claim]], AbstractContextManager[Order | None]],
        on_written: Callable[[Sequence[Claim], Refill | None], None],
        begin: Callable[[Sequence[Claim]], None],
        in_flight: Callable[[], int],
        on_failure: Callable[[DatabaseUnavailable], None],
        metrics: Metrics,
        randomness: random.Random,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._randomness = randomness
        self._order = order
        self._on_written = on_written
        self._begin = begin
        self._in_flight = in_flight
        self._on_failure = on_failure
        self._pending: list[Result] = []
        self._claimed: list[Claim] = []  # whose attempts have not begun
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many results are not written yet."""
        return len(self._pending)

    def add(self, result: Result) -> None:
        """Takes a result; it is written soon."""
        self._pending.append(result)
        self._arrived.set()

    async def run(self) -> None:
        """Writes results until it is cancelled; call it once."""
        backoff = Backoff()
        while True:
            await self._arrived.wait()
            try:
                while self._pending:
                    await self._write_batch()
                    backoff.reset()
                self._arrived.clear()
                self._begin_claimed()
            except DatabaseUnavailable as error:
                # The results wait here: they are of attempts that were made, and a lease that ends meanwhile
                # only means that the receiver gets the notification once more.
                self._on_failure(error)
                logger.warning(
                    "cannot record %d results yet: %s",
                    len(self._pending),
                    error,
                    extra={"action": "record.delayed"},
                )
                await backoff.sleep()

    async def _write_batch(self) -> None:
        # In the order of ids, so that two notifiers touch rows and pages in the same order.
        batch = sorted(self._pending[: self._batch_limit()], key=_key)
        locked: list[Result] = []
        last: DatabaseUnavailable | None = None
        try:
            await self._write(batch, with_claims=True)
        except DatabaseUnavailable as error:
            self._begin_claimed()
            if not error.failure.contained:
                raise
            # A lock that one of them needs keeps back that one only.
            last = error
            locked = await self._write_one_by_one(batch)
        except Exception:
            self._begin_claimed()
            if len(batch) > 1:
                logger.exception(
                    "a batch of results was refused; writing them one by one",
                    extra={"action": "record.split"},
                )
            locked = await self._write_one_by_one(batch)
        if locked:
            # Behind the others, which may be written meanwhile.
            later = set(map(id, locked))
            self._pending = [result for result in self._pending if id(result) not in later] + locked
            raise last or unavailable(LOCK_TIMEOUT)

    def _finish(self, results: Sequence[Result], refill: Refill | None = None) -> None:
        """Takes results off the list: right after each commit, or a failure after it would write them again."""
        written = set(map(id, results))
        self._pending = [result for result in self._pending if id(result) not in written]
        if refill is not None:
            self._claimed += refill.claims
        self._on_written([result.claim for result in results], refill)

    def _begin_claimed(self) -> None:
        """Begins the attempts of what was claimed with the previous batch.

        Each of them takes the loop for a moment, all of them together for longer than the database may have to wait
        for the next batch: so that one is sent first, and the database works while the attempts begin.
        """
        claimed, self._claimed = self._claimed, []
        self._begin(claimed)

    def _batch_limit(self) -> int:
        """Half of what is in flight: while the database is at one half, the receivers have the other.

        Written all at once, slots would all be free at once, and each side would wait for the other in turn.
        """
        return min(max(self._in_flight() // 2, SMALL_BATCH), BATCH_LIMIT)

    async def _write_one_by_one(self, batch: Sequence[Result]) -> list[Result]:
        """Keeps one result that the database refuses from holding back the others.

        Returns those that it may take later.
        """
        later: list[Result] = []
        locked: set[tuple[int, str]] = set()
        waiting = set(map(id, self._pending))
        for result in batch:
            if id(result) not in waiting:
                continue  # a transaction of the batch had written it before another was refused
            endpoint = result.claim.organization_id, result.claim.endpoint_id
            if endpoint in locked:
                later.append(result)
                continue
            for attempt in range(1, TRIES_ALONE + 1):
                try:
                    await self._write([result])
                    break
                except DatabaseUnavailable as error:
                    if not error.failure.contained:
                        raise
                    later.append(result)
                    locked.add(endpoint)
                    break
                except Exception:
                    if attempt == TRIES_ALONE:
                        logger.exception(
                            "a result cannot be recorded; its delivery is attempted again when its lease ends",
                            extra={"action": "record.refused", "delivery_id": result.claim.delivery_id},
                        )
                        self._finish([result])
        return later

    async def _write(self, batch: Sequence[Result], *, with_claims: bool = False) -> None:
        """Writes a batch, and claims for the slots that it frees if it is `with_claims`."""
        records = [result for result in batch if isinstance(result, AttemptRecord)]
        returns: dict[timedelta, list[Return]] = {}
        for result in batch:
            if isinstance(result, Return):
                returns.setdefault(result.delay, []).append(result)
        if records:
            refill = None
            done = [record.claim for record in records]
            with self._order(done) if with_claims and not returns else nullcontext() as order:
                async with self._database.transaction() as connection:
                    recorded = await delivery_results.record(
                        connection, records, self._randomness, order, self._begin_claimed
                    )
            # The slots that were kept for the claims are free again: nothing may be awaited before they are taken.
            if order is not None and recorded.claims is not None:
                refill = Refill(recorded.claims, full=len(recorded.claims) == order.limit)
            self._finish(records, refill)
            for record in _missing(records, recorded.written):
                self._metrics.results_fenced += 1
                logger.warning(
                    "the lease was taken over while the attempt ran; its result is dropped",
                    extra={"action": "record.fenced", "delivery_id": record.claim.delivery_id},
                )
        for delay, given_back in returns.items():
            async with self._database.transaction() as connection:
                await delivery_results.release(connection, [one.claim for one in given_back], delay=delay)
            self._metrics.claims_returned += len(given_back)
            self._finish(given_back)


def _key(result: Result) -> tuple[int, str]:
    return result.claim.organization_id, result.claim.delivery_id


def _missing(records: Sequence[AttemptRecord], written: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    there = set(map(id, written))
    return [record for record in records if id(record) not in there]
