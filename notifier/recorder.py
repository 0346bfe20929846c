"""Writes results to the database: in batches, and again and again until the database has taken them."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from notifier.backoff import Backoff
from notifier.metrics import Metrics
from store import delivery_results
from store.database import Database, DatabaseUnavailable
from store.delivery_queue import Claim
from store.delivery_results import AttemptRecord

BATCH_LIMIT = 200  # results in one transaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Return:
    """A claim to give back without an attempt, because the fault is ours."""

    claim: Claim
    delay: timedelta  # until the delivery is due again


Result = AttemptRecord | Return


class Recorder:
    """Takes results as they come and writes those that gathered while the previous batch was being written.

    A slow database thus makes batches larger, not the queue longer. `on_written` is told which claims
    are done with.
    """

    def __init__(
        self,
        database: Database,
        on_written: Callable[[Sequence[Claim]], None],
        metrics: Metrics,
        randomness: random.Random,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._randomness = randomness
        self._on_written = on_written
        self._pending: list[Result] = []
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
            except DatabaseUnavailable as error:
                # The results wait here: they are of attempts that were made, and a lease that ends meanwhile
                # only means that the receiver gets the notification once more.
                logger.warning(
                    "cannot record %d results yet: %s",
                    len(self._pending),
                    error,
                    extra={"action": "record.delayed"},
                )
                await backoff.sleep()

    async def _write_batch(self) -> None:
        # In the order of ids, so that two notifiers touch rows and pages in the same order.
        batch = sorted(self._pending[:BATCH_LIMIT], key=_key)
        try:
            await self._write(batch)
        except DatabaseUnavailable:
            raise
        except Exception:
            if len(batch) > 1:
                logger.exception(
                    "a batch of results was refused; writing them one by one",
                    extra={"action": "record.split"},
                )
            await self._write_one_by_one(batch)
        # Only now: what is cancelled or fails above stays in the list.
        written = set(map(id, batch))
        self._pending = [result for result in self._pending if id(result) not in written]
        self._on_written([result.claim for result in batch])

    async def _write_one_by_one(self, batch: Sequence[Result]) -> None:
        """Keeps one result that the database refuses from holding back the others."""
        for result in batch:
            try:
                await self._write([result])
            except DatabaseUnavailable:
                raise
            except Exception:
                logger.exception(
                    "a result cannot be recorded; its delivery is attempted again when its lease ends",
                    extra={"action": "record.refused", "delivery_id": result.claim.delivery_id},
                )

    async def _write(self, batch: Sequence[Result]) -> None:
        records = [result for result in batch if isinstance(result, AttemptRecord)]
        returns: dict[timedelta, list[Claim]] = {}
        for result in batch:
            if isinstance(result, Return):
                returns.setdefault(result.delay, []).append(result.claim)
        if records:
            async with self._database.transaction() as connection:
                written = await delivery_results.record(connection, records, self._randomness)
            for record in _missing(records, written):
                self._metrics.results_fenced += 1
                logger.warning(
                    "the lease was taken over while the attempt ran; its result is dropped",
                    extra={"action": "record.fenced", "delivery_id": record.claim.delivery_id},
                )
        for delay, claims in returns.items():
            self._metrics.claims_returned += len(claims)
            async with self._database.transaction() as connection:
                await delivery_results.release(connection, claims, delay=delay)


def _key(result: Result) -> tuple[int, str]:
    return result.claim.organization_id, result.claim.delivery_id


def _missing(records: Sequence[AttemptRecord], written: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    there = set(map(id, written))
    return [record for record in records if id(record) not in there]
