"""The loop of the notifier: outbox rows become deliveries, and due deliveries become attempts.

The way of one delivery: `_fan_out` makes it, `_fan_out` or `_claim` claims it, `notifier.in_flight` attempts it, and
`notifier.recorder` writes the result.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from notifier.attempts import Attempter
from notifier.hints import Hints
from notifier.in_flight import InFlight
from notifier.late_bodies import LateBodies
from notifier.metrics import Metrics
from notifier.orphans import OrphanedLeases
from notifier.recorder import Recorder
from notifier.slots import Slots
from runtime.actions import LogAction
from runtime.backoff import Backoff
from store.deliveries import claims as delivery_claims
from store.deliveries import leases, outbox
from store.deliveries.claims import Claim
from store.deliveries.pending_work import pending_work
from store.endpoints.endpoints import MAX_ENDPOINTS
from store.postgres.database import Database, DatabaseUnavailable

POLL_INTERVAL = 1.0  # seconds between two polls of the database when no notification wakes the loop
ALL_NODES_INTERVAL = 5.0  # seconds between two fan-outs on a cluster that no notification wakes
POLL_SHARE = 0.1  # of the time that polls may take at most, when one delivery after the other becomes due
FAN_OUT_LIMIT = 200  # outbox rows in one transaction
FAN_OUT_DELIVERIES = 600  # deliveries in one transaction, about: the first of them wait for the last
LAST_RELEASE = 2.0  # seconds of a drain, at most, for the last release of orphaned leases; the database may be away
STUCK_AFTER = 60.0  # seconds without a round of the loop

logger = logging.getLogger(__name__)


class Worker:
    """Claims, attempts and records deliveries, up to `concurrency` at a time."""

    def __init__(
        self,
        database: Database,
        attempter: Attempter,
        metrics: Metrics,
        *,
        concurrency: int,
        lease: timedelta,
        poll_interval: float = POLL_INTERVAL,
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_poll` is called each time the database was asked what waits, and what it named was claimed."""
        self.concurrency = concurrency
        self._poll_interval = poll_interval
        self._on_poll = on_poll
        self._database = database
        self._metrics = metrics
        self._hints = Hints()
        slots = Slots(concurrency, lease)
        self._orphans = OrphanedLeases(database, slots.holdings, metrics)
        self._in_flight = InFlight(slots, attempter, self._orphans, self._hints, LateBodies(database))
        self._recorder = Recorder(database, self._in_flight, metrics, random.Random())
        # Small for the first fan-out, which does not know yet how many endpoints there are.
        self._fan_out_limit = FAN_OUT_DELIVERIES // MAX_ENDPOINTS
        self._next_outbox_read = 0.0  # on a cluster, by the event loop's clock
        self._last_round = asyncio.get_running_loop().time()
        self._database_answers = False
        self._stops = False

    @property
    def in_flight(self) -> int:
        """How many claims this worker holds."""
        return self._in_flight.count

    @property
    def results_waiting(self) -> int:
        """How many results are not written yet."""
        return len(self._in_flight.results)

    @property
    def is_ready(self) -> bool:
        """Whether it sends: its loop turns, the database answered last, and it has not been asked to stop."""
        turns = asyncio.get_running_loop().time() - self._last_round < STUCK_AFTER
        return turns and self._database_answers and not self._stops

    def outbox_changed(self) -> None:
        """Wakes the loop, because outbox rows may have been committed."""
        self._hints.outbox_changed()

    def deliveries_due(self) -> None:
        """Wakes the loop, because deliveries may be due."""
        self._hints.deliveries_due()

    async def run(self, stop: asyncio.Event, drain_timeout: float) -> None:
        """Works until `stop` is set, then ends what is in flight within `drain_timeout` seconds.

        An attempt that takes longer is cut off, and its delivery is given back for another notifier. When this
        is cancelled, everything in flight is left to its lease.
        """
        recording = asyncio.create_task(self._recorder.run(), name="notifier recorder")
        watching = asyncio.create_task(self._wait_for(stop), name="notifier stop")
        try:
            await self._work(stop)
            # _work may have waited for the database when it was asked to stop.
            elapsed = asyncio.get_running_loop().time() - (await watching)
            await self._drain(drain_timeout - elapsed)
        finally:
            recording.cancel()
            watching.cancel()
            await self._in_flight.cancel()
            await asyncio.gather(recording, watching, return_exceptions=True)

    async def _work(self, stop: asyncio.Event) -> None:
        backoff = Backoff()
        next_poll = 0.0
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            self._last_round = loop.time()
            try:
                if not self._hints.any() and loop.time() < next_poll:
                    await self._hints.wait(next_poll - loop.time())
                    continue
                polls = loop.time() >= next_poll
                if polls:
                    next_poll = loop.time() + self._poll_interval  # also when the poll fails
                    next_poll = min(next_poll, await self._poll())
                await self._step()
                self._database_answers = True
                backoff.reset()
                if polls:
                    self._on_poll()
            except DatabaseUnavailable as error:
                # A failure that concerns one transaction does not mean that the next one fails.
                self._database_answers = error.failure.contained
                self._in_flight.suspect_orphans(error)
                self._metrics.database_failures += 1
                logger.warning("waiting for the database: %s", error, extra={"action": LogAction.DATABASE_LOST})
                await backoff.sleep()
            except Exception:
                # A fault of Tidemark must not end the only process that sends webhooks.
                logger.exception("a step of the notifier failed", extra={"action": LogAction.WORKER_FAILED})
                await backoff.sleep()

    async def _wait_for(self, stop: asyncio.Event) -> float:
        """Wakes the loop when it is asked to stop; returns the time of that, by the event loop's clock."""
        await stop.wait()
        self._stops = True
        self._in_flight.stop_claiming()
        self._hints.wake()
        return asyncio.get_running_loop().time()

    async def _poll(self) -> float:
        """Asks the database which work waits; returns the time of the next poll, by the event loop's clock."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with self._database.transaction() as connection:
            work = await pending_work(connection, timedelta(seconds=self._poll_interval))
        self._hints.add(work)
        if work.outbox is None and clock() >= self._next_outbox_read:
            self._hints.outbox = True
            self._next_outbox_read = clock() + ALL_NODES_INTERVAL
        if work.due_in is None:
            return clock() + self._poll_interval
        return clock() + max(work.due_in.total_seconds(), (clock() - began) * (1 / POLL_SHARE - 1))

    async def _step(self) -> None:
        if self._orphans.due():
            released = await self._orphans.release()
            # Not in one statement with the release: it would read the hint before it, and lose one set meanwhile.
            self._hints.due |= released > 0
        if self._hints.outbox:
            await self._fan_out()
        if self._hints.expired:
            await self._release_expired()
        if self._hints.due:
            await self._claim()

    async def _fan_out(self) -> None:
        hints = self._hints
        claims: list[Claim] = []
        with hints.taken("outbox"), self._in_flight.reserve() as request:
            async with self._database.transaction() as connection:
                limit = self._fan_out_limit
                fan_out = await outbox.fan_out(connection, limit)
                if fan_out.created and request is not None:
                    # In one transaction: a new notification waits for one commit instead of two.
                    claims = await delivery_claims.claim(connection, request)
        hints.outbox |= fan_out.taken == limit
        if fan_out.created:
            fitting = FAN_OUT_DELIVERIES * fan_out.taken // fan_out.created
            self._fan_out_limit = min(max(fitting, 1), FAN_OUT_LIMIT)
        hints.due |= len(claims) < fan_out.created
        self._metrics.fanned_out += fan_out.created
        self._start(claims)

    async def _release_expired(self) -> None:
        with self._hints.taken("expired"):
            async with self._database.transaction() as connection:
                released = await leases.release_expired(connection)
        if released:
            self._metrics.leases_expired += released
            logger.warning(
                "%d leases of a notifier that died were taken over",
                released,
                extra={"action": LogAction.LEASE_EXPIRED},
            )
        self._hints.expired |= released == leases.RELEASE_LIMIT
        self._hints.due |= released > 0

    async def _claim(self) -> None:
        with self._hints.taken("due"), self._in_flight.reserve() as request:
            if request is None:
                return  # the recorder claims with the next results
            async with self._database.transaction() as connection:
                claims = await delivery_claims.claim(connection, request)
        self._start(claims)
        # After a full claim more may be due; so it may be after each result that frees a slot.
        self._hints.due |= len(claims) == request.limit

    def _start(self, claims: Sequence[Claim]) -> None:
        self._in_flight.take(claims)
        self._in_flight.begin(claims)

    async def _drain(self, timeout: float) -> None:
        """Ends what is in flight, and gives orphaned leases back for the last time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        await self._in_flight.drain(timeout)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(end, loop.time() + LAST_RELEASE)):
                await self._orphans.release_last()
