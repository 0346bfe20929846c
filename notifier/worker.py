"""The loop at the heart of the notifier: outbox rows become deliveries, due deliveries become attempts."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from notifier.attempts import RETURN_DELAY, Attempter
from notifier.metrics import Metrics
from notifier.orphans import OrphanedLeases
from notifier.recorder import Recorder, Refill, Return
from notifier.sending import Sender
from notifier.slots import Slots
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from store.deliveries import fan_out as outbox
from store.deliveries import queue as delivery_queue
from store.deliveries import results as delivery_results
from store.deliveries.queue import Claim, Order
from store.endpoints.endpoints import MAX_ENDPOINTS
from store.postgres.database import Database, DatabaseUnavailable
from webhooks.secret_box import SecretBox

POLL_INTERVAL = 1.0  # seconds between looks at the database when nothing else wakes the loop
POLL_SHARE = 0.1  # of the time, at most, that looks may take when one thing after the other becomes due
FAN_OUT_LIMIT = 200  # outbox rows in one transaction
FAN_OUT_DELIVERIES = 600  # that they may come to, about: the first of them wait for the last
LAST_RELEASE = 2.0  # seconds of a drain, at most, to give back leases that are not known; the database may be away
STUCK_AFTER = 60.0  # seconds without a round of the loop

logger = logging.getLogger(__name__)


@dataclass
class _Hints:
    """What may wait in the database. A wrong hint costs a statement, a missing one is found by polling."""

    outbox: bool = False
    due: bool = False
    expired: bool = False

    def any(self) -> bool:
        return self.outbox or self.due or self.expired


class Worker:
    """Claims, attempts and records deliveries, up to `concurrency` at a time."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        clock: Clock,
        *,
        concurrency: int,
        lease: timedelta,
        box: SecretBox | None = None,
        metrics: Metrics | None = None,
        randomness: random.Random | None = None,
        poll_interval: float = POLL_INTERVAL,
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_poll` is called each time the database was asked what waits, and what it named was claimed."""
        self._poll_interval = poll_interval
        self._on_poll = on_poll
        self._database = database
        self._slots = Slots(concurrency, lease)
        self._metrics = metrics or Metrics()
        self._orphans = OrphanedLeases(database, self._slots.holdings, self._metrics)
        randomness = randomness or random.Random()
        self._attempter = Attempter(sender, clock, box, self._metrics, randomness)
        self._recorder = Recorder(
            database,
            self._order,
            self._on_written,
            self._begin,
            lambda: self._slots.taken,
            self._orphans.suspect,
            self._metrics,
            randomness,
        )
        self._hints = _Hints()
        # The first one does not know yet how many endpoints there are.
        self._fan_out_limit = FAN_OUT_DELIVERIES // MAX_ENDPOINTS
        self._wake = asyncio.Event()
        self._last_round = asyncio.get_running_loop().time()
        self._database_answers = False
        self._stops = False
        self._attempts: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """How many claims this worker holds."""
        return self._slots.taken

    @property
    def results_waiting(self) -> int:
        """How many results are not written yet."""
        return self._recorder.waiting

    @property
    def is_ready(self) -> bool:
        """Whether it sends: it came round lately, the database answered, and nothing has asked it to stop."""
        came_round = asyncio.get_running_loop().time() - self._last_round < STUCK_AFTER
        return came_round and self._database_answers and not self._stops

    def outbox_changed(self) -> None:
        """Wakes the loop, because outbox rows may have been committed."""
        self._hints.outbox = True
        self._wake.set()

    def deliveries_due(self) -> None:
        """Wakes the loop, because deliveries may have become due."""
        self._hints.due = True
        self._wake.set()

    async def run(self, stop: asyncio.Event, drain_timeout: float) -> None:
        """Works until `stop` is set, then ends what is in flight within `drain_timeout` seconds.

        An attempt that takes longer is cut off, and its delivery given back for another notifier. When this
        is cancelled, everything in flight is left to its lease.
        """
        recording = asyncio.create_task(self._recorder.run(), name="notifier recorder")
        watching = asyncio.create_task(self._wait_for(stop), name="notifier stop")
        try:
            await self._work(stop)
            # _work may have been waiting for the database when it was asked to stop.
            elapsed = asyncio.get_running_loop().time() - (await watching)
            await self._drain(drain_timeout - elapsed)
        finally:
            tasks = (recording, watching, *self._attempts)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, stop: asyncio.Event) -> None:
        backoff = Backoff()
        next_poll = 0.0
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            self._last_round = loop.time()
            try:
                if not self._hints.any() and loop.time() < next_poll:
                    await self._sleep(next_poll - loop.time())
                    continue
                polls = loop.time() >= next_poll
                if polls:
                    next_poll = loop.time() + self._poll_interval  # also when it fails
                    next_poll = min(next_poll, await self._poll())
                await self._step()
                self._database_answers = True
                backoff.reset()
                if polls:
                    self._on_poll()
            except DatabaseUnavailable as error:
                # What concerns one transaction says nothing about the next.
                self._database_answers = error.failure.contained
                self._orphans.suspect(error)
                self._metrics.database_failures += 1
                logger.warning("waiting for the database: %s", error, extra={"action": LogAction.DATABASE_LOST})
                await backoff.sleep()
            except Exception:
                # A fault of ours must not end the only process that sends anything.
                logger.exception("a step of the notifier failed", extra={"action": LogAction.WORKER_FAILED})
                await backoff.sleep()

    async def _wait_for(self, stop: asyncio.Event) -> float:
        """Wakes the loop when it is asked to stop; returns when that was, by the event loop's clock."""
        await stop.wait()
        self._stops = True
        self._wake.set()
        return asyncio.get_running_loop().time()

    async def _sleep(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        self._wake.clear()

    async def _poll(self) -> float:
        """Asks the database what waits; returns when to ask again, by the event loop's clock."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with self._database.transaction() as connection:
            waiting = await delivery_queue.waiting(connection, timedelta(seconds=self._poll_interval))
        self._hints.outbox |= waiting.outbox
        self._hints.due |= waiting.due
        self._hints.expired |= waiting.expired
        if waiting.due_in is None:
            return clock() + self._poll_interval
        return clock() + max(waiting.due_in.total_seconds(), (clock() - began) * (1 / POLL_SHARE - 1))

    async def _step(self) -> None:
        if self._orphans.due():
            self._hints.due |= await self._orphans.release() > 0
        if self._hints.outbox:
            await self._fan_out()
        if self._hints.expired:
            await self._release_expired()
        if self._hints.due:
            await self._claim()

    async def _fan_out(self) -> None:
        hints = self._hints
        # Cleared before the look, not after it: what is committed during it sets the hint again.
        hints.outbox = False
        claims: list[Claim] = []
        with self._order() as order:
            async with self._database.transaction() as connection:
                limit = self._fan_out_limit
                fan_out = await outbox.fan_out(connection, limit)
                if fan_out.created and order is not None:
                    # In one transaction: a notification on its way waits for one commit less.
                    claims = await delivery_queue.claim(connection, order)
        hints.outbox |= fan_out.taken == limit
        if fan_out.created:
            fitting = FAN_OUT_DELIVERIES * fan_out.taken // fan_out.created
            self._fan_out_limit = min(max(fitting, 1), FAN_OUT_LIMIT)
        hints.due |= len(claims) < fan_out.created
        self._metrics.fanned_out += fan_out.created
        self._start(claims)

    async def _release_expired(self) -> None:
        self._hints.expired = False
        async with self._database.transaction() as connection:
            released = await delivery_results.release_expired(connection)
        if released:
            self._metrics.leases_expired += released
            logger.warning(
                "%d leases of a notifier that died were taken over",
                released,
                extra={"action": LogAction.LEASE_EXPIRED},
            )
        self._hints.expired |= released == delivery_results.RELEASE_LIMIT
        self._hints.due |= released > 0

    async def _claim(self) -> None:
        self._hints.due = False
        with self._order() as order:
            if order is None:
                return  # the next results that are written look for more
            async with self._database.transaction() as connection:
                claims = await delivery_queue.claim(connection, order)
        self._start(claims)
        # A full claim says that there may be more; so does each result that frees a slot.
        self._hints.due |= len(claims) == order.limit

    @contextlib.contextmanager
    def _order(self, done: Sequence[Claim] = ()) -> Iterator[Order | None]:
        """What to claim in the transaction of the block, in which the slots of `done` become free.

        None when there is no room or the notifier drains.
        """
        if self._stops:
            yield None
            return
        with self._slots.order(done) as order:
            yield order

    def _start(self, claims: Sequence[Claim]) -> None:
        """Takes note of what was claimed, and begins it; the claims have been committed."""
        self._slots.take(claims)
        self._begin(claims)

    def _begin(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            task = asyncio.create_task(self._deliver(claim), name=f"attempt {claim.delivery_id}")
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)

    def _on_written(self, done: Sequence[Claim], refill: Refill | None) -> None:
        """Takes note of what is done with, and of what was claimed with it (None: nobody looked for any)."""
        if refill is not None:
            self._slots.take(refill.claims)
        self._slots.free(done)
        if refill is None or refill.full:
            self._hints.due = True
            self._wake.set()

    async def _deliver(self, claim: Claim) -> None:
        """Makes one attempt and hands its result to the recorder, whatever happens."""
        try:
            self._recorder.add(await self._attempter.attempt(claim))
        except asyncio.CancelledError:
            # Cut off by a drain: whether the receiver has it is unknown, so it gets it again.
            self._recorder.add(Return(claim, timedelta(0)))
            raise
        except Exception:
            logger.exception(
                "an attempt failed by a fault of ours",
                extra={"action": LogAction.ATTEMPT_FAILED, "delivery_id": claim.delivery_id},
            )
            self._recorder.add(Return(claim, RETURN_DELAY))

    async def _drain(self, timeout: float) -> None:
        """Waits for what is in flight; cuts off what takes too long, and leaves time to record it."""
        logger.info("draining %d deliveries", self._slots.taken, extra={"action": LogAction.DRAIN})
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        if not await self._slots.all_free_within(timeout * 0.75):
            for task in self._attempts:
                task.cancel()
            if not await self._slots.all_free_within(timeout * 0.25):
                logger.warning(
                    "%d deliveries are left to their leases",
                    self._slots.taken,
                    extra={"action": LogAction.DRAIN_INCOMPLETE},
                )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(end, loop.time() + LAST_RELEASE)):
                await self._orphans.release_last()
