"""Leases of which their notifier does not know: given back after a failure of the database, not when they end."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from enum import StrEnum

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.attempts import Attempter
from notifier.metrics import Metrics
from notifier.orphans import OrphanedLeases
from notifier.sending import Sender, Timeouts
from notifier.slots import Slots
from notifier.worker import Worker
from store.deliveries import claims as delivery_claims
from store.deliveries import outbox
from store.deliveries.claims import Claim
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST, LOCK_TIMEOUT, Failure, unavailable
from tests.support.notifier.house import BOX, House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver
from tests.support.waiting import within
from webhooks.deliveries import DeliveryStatus
from webhooks.url_policy import UrlPolicy

LEASE = timedelta(minutes=5)  # beyond every limit of these tests
AT_ONCE = (0.0, 0.0)  # the pauses between three releases
SHARE = DEFAULT_MAX_IN_FLIGHT


class Wrote(StrEnum):
    """What a transaction did besides its claim."""

    FAN_OUT = "fan-out"
    NOTHING = "nothing"
    RESULTS = "results"


# What this transaction has written.
_WROTE = text("""
SELECT EXISTS (SELECT FROM delivery_live
               WHERE lease_token IS NOT NULL AND xmin = pg_current_xact_id()::xid) AS claims,
       EXISTS (SELECT FROM attempt WHERE xmin = pg_current_xact_id()::xid) AS results,
       EXISTS (SELECT FROM delivery_live WHERE create_time = now()) AS fan_out
""")


async def written(connection: AsyncConnection) -> Wrote | None:
    """What a transaction that has claimed wrote besides; None when it has not claimed anything."""
    row = (await connection.execute(_WROTE)).one()
    if not row.claims:
        return None
    if row.results:
        return Wrote.RESULTS
    return Wrote.FAN_OUT if row.fan_out else Wrote.NOTHING


class LosesAnswers(Database):
    """A database that commits, but whose answers to the first claims of each kind are lost."""

    def __init__(self, url: str, lost: Iterable[Wrote], on_lost: Callable[[], None] = lambda: None) -> None:
        super().__init__(url, pool_size=4)
        self.left = list(lost)
        self._on_lost = on_lost

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        wrote = None
        async with super().transaction() as connection:
            yield connection
            if self.left:
                wrote = await written(connection)
        if wrote in self.left:
            self.left.remove(wrote)
            self._on_lost()
            raise unavailable(CONNECTION_LOST)


class LosesCommits(Database):
    """A database that answers the first commit of results and a claim, and then crashes before it is on the disk."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=4)
        self.has_lost = False
        self._crashes = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self._crashes:
            self._crashes = False
            self.losses += 1
            raise unavailable(CONNECTION_LOST)
        with suppress(_NotOnDisk):
            async with super().transaction() as connection:
                yield connection
                if not self.has_lost and await written(connection) is Wrote.RESULTS:
                    self.has_lost = self._crashes = True
                    raise _NotOnDisk


class _NotOnDisk(Exception):
    """Rolls a transaction back."""


class FailsFirst(Database):
    """A database that does not begin its first transactions."""

    def __init__(self, url: str, failures: Iterable[Failure]) -> None:
        super().__init__(url, pool_size=1)
        self.left = list(failures)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.left:
            raise unavailable(self.left.pop(0))
        async with super().transaction() as connection:
            yield connection


class InTransaction(Database):
    """A database that calls `then`, once it is set, in the next transaction."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=2)
        self.then: Callable[[], None] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with super().transaction() as connection:
            yield connection
            then, self.then = self.then, None
            if then is not None:
                then()


class Notifier:
    """The leases of one notifier, whose claims a test makes one by one."""

    def __init__(self, house: House, database: Database | None = None) -> None:
        self.metrics = Metrics()
        self.slots = Slots(100, LEASE)
        self.orphans = OrphanedLeases(database or house.database, self.slots.holdings, self.metrics, AT_ONCE)
        self._house = house

    async def claim(self) -> list[Claim]:
        """Claims what is due, as a worker does."""
        claims = await self.lose_answer()
        self.slots.take(claims)
        return claims

    async def lose_answer(self) -> list[Claim]:
        """Claims what is due and takes no slots, as if the answer were lost."""
        with self.slots.reserve() as request:
            assert request is not None
            async with self._house.database.transaction() as connection:
                return await delivery_claims.claim(connection, request)

    def fail(self, failure: Failure = CONNECTION_LOST) -> None:
        """Meets a failure of the database."""
        self.orphans.suspect(unavailable(failure))


async def fan_out(house: House, number: int) -> None:
    """Makes as many deliveries that are due."""
    await house.notify(number)
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, number)


async def in_flight(house: House) -> int:
    """How many deliveries are leased, by the counter of the only endpoint."""
    [number] = (await house.in_flight()).values()
    return number


@pytest.fixture
async def due(house: House) -> int:
    """An endpoint, and how many deliveries to it are due: as many as may be in flight."""
    await house.endpoint("https://example.com/hook")
    await fan_out(house, SHARE)
    return SHARE


@pytest.mark.parametrize(
    "lost",
    # Results travel with a claim when more is due than the endpoint may have in flight.
    [[Wrote.FAN_OUT], [Wrote.RESULTS], [Wrote.FAN_OUT, Wrote.NOTHING, Wrote.RESULTS]],
    ids="-".join,
)
async def test_deliveries_are_claimed_again_before_their_lease_ends_when_the_answer_to_a_claim_is_lost(
    house: House, receiver: Receiver, lost: list[Wrote]
) -> None:
    await house.endpoint(receiver.url)
    database = LosesAnswers(house.database.url, lost)
    async with running_notifier(house, database=database):
        await house.notify(2 * SHARE)
        await house.settled(DeliveryStatus.DELIVERED, 2 * SHARE)
    assert database.left == [], "every answer was lost"
    assert len(receiver.arrivals) == 2 * SHARE, "no attempt of a lost claim has begun"
    assert await in_flight(house) == 0


async def test_deliveries_are_claimed_again_before_their_lease_ends_when_the_answer_to_a_mere_claim_is_lost(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    await fan_out(house, 1)
    database = LosesAnswers(house.database.url, [Wrote.NOTHING])
    async with running_notifier(house, database=database):
        await house.settled(DeliveryStatus.DELIVERED, 1)
    assert database.left == [], "the answer was lost"
    assert len(receiver.arrivals) == 1
    assert await in_flight(house) == 0


async def test_an_endpoint_gets_the_rest_before_leases_end_when_a_crash_loses_results(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    database = LosesCommits(house.database.url)
    async with running_notifier(house, database=database):
        ids = await house.notify(4 * SHARE)
        await house.settled(DeliveryStatus.DELIVERED, 4 * SHARE)
    assert database.has_lost
    assert set(receiver.ids()) == set(ids)
    assert await in_flight(house) == 0


async def test_the_drain_gives_a_delivery_back_when_the_answer_to_the_last_claim_is_lost(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    await fan_out(house, 1)
    stop = asyncio.Event()
    database = LosesAnswers(house.database.url, [Wrote.NOTHING], on_lost=stop.set)
    async with running_notifier(house, database=database, stop=stop), within("a claim"):
        await stop.wait()
    [waiting] = await house.deliveries()
    assert waiting.next_attempt_time is not None, "it is due for another notifier"
    assert receiver.arrivals == []
    assert await in_flight(house) == 0


async def test_a_claim_is_given_back_when_it_is_committed_after_the_first_release(house: House, due: int) -> None:
    notifier = Notifier(house)
    with notifier.slots.reserve() as request:
        assert request is not None
    async with house.database.transaction() as connection:
        await delivery_claims.claim(connection, request)
        notifier.fail()
        assert await notifier.orphans.release() == 0, "it is not committed yet"
    assert notifier.orphans.due()
    assert await notifier.orphans.release() == due
    assert await in_flight(house) == 0


async def test_leases_that_the_notifier_holds_or_is_claiming_are_not_given_back(house: House, due: int) -> None:
    notifier = Notifier(house)
    await notifier.claim()
    notifier.fail()
    assert await notifier.orphans.release() == 0
    await house.endpoint("https://example.com/other")
    await fan_out(house, 1)
    with notifier.slots.reserve() as request:
        assert request is not None
        async with house.database.transaction() as connection:
            claims = await delivery_claims.claim(connection, request)
        assert len(claims) == 1
        # The transaction has committed, and the claims have no slots yet, while another task releases.
        assert await notifier.orphans.release() == 0
        notifier.slots.take(claims)
    notifier.slots.free(claims)
    assert await notifier.orphans.release() == 1, "its result was lost"


async def test_the_leases_of_another_notifier_are_not_given_back(house: House, due: int) -> None:
    await Notifier(house).claim()
    notifier = Notifier(house)
    notifier.fail()
    assert await notifier.orphans.release() == 0
    assert await in_flight(house) == due


async def test_nothing_is_released_without_a_failure_that_may_leave_orphans(house: House) -> None:
    notifier = Notifier(house)
    assert not notifier.orphans.due()
    notifier.fail(LOCK_TIMEOUT)
    assert not notifier.orphans.due(), "it concerns one transaction, which was rolled back"


async def test_releases_end_some_time_after_the_last_failure(house: House) -> None:
    notifier = Notifier(house)
    for _ in range(2):
        notifier.fail()
        assert await notifier.orphans.release() == 0
    for _ in AT_ONCE:
        assert notifier.orphans.due()
        assert await notifier.orphans.release() == 0
    assert not notifier.orphans.due()


async def test_orphans_of_several_claims_wait_while_the_database_is_away(house: House) -> None:
    away = FailsFirst(house.database.url, [CONNECTION_LOST] * 10)
    notifier = Notifier(house, away)
    await house.endpoint("https://example.com/hook")
    for _ in range(SHARE):
        await fan_out(house, 1)
        assert len(await notifier.lose_answer()) == 1
    notifier.fail()
    while away.left:
        assert notifier.orphans.due()
        with pytest.raises(DatabaseUnavailable):
            await notifier.orphans.release()
    assert await notifier.orphans.release() == SHARE
    assert await in_flight(house) == 0
    await away.close()


async def test_a_release_that_meets_a_lock_does_not_keep_the_worker_from_other_work(house: House, due: int) -> None:
    locked = FailsFirst(house.database.url, [LOCK_TIMEOUT] * (1 + len(AT_ONCE)))
    notifier = Notifier(house, locked)
    notifier.fail()
    for _ in range(1 + len(AT_ONCE)):
        with pytest.raises(DatabaseUnavailable):
            await notifier.orphans.release()
    assert not notifier.orphans.due(), "each try counts"
    await locked.close()


async def test_a_hint_that_comes_during_a_release_is_not_lost(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    database, polled, stop = InTransaction(house.database.url), asyncio.Event(), asyncio.Event()
    settings = configuration()
    policy = UrlPolicy(settings.webhook_allow_http, settings.webhook_allow_networks)
    async with Sender(policy, Timeouts.of(settings.webhook_timeout), house.clock) as sender:
        metrics = Metrics()
        worker = Worker(
            database,
            Attempter(sender, house.clock, BOX, metrics, random.Random(7)),
            metrics,
            concurrency=SHARE,
            lease=LEASE,
            poll_interval=3_600.0,  # no second poll finds the delivery
            on_poll=polled.set,
        )
        running = asyncio.create_task(worker.run(stop, drain_timeout=10.0))
        try:
            async with within("the first poll"):
                await polled.wait()
            await fan_out(house, 1)
            database.losses += 1
            database.then = worker.deliveries_due
            worker.outbox_changed()  # a round of the loop, which begins with the release
            await house.settled(DeliveryStatus.DELIVERED, 1)
        finally:
            stop.set()
            await running
            await database.close()


async def test_the_last_release_is_tried_until_the_database_answers(house: House, due: int) -> None:
    away = FailsFirst(house.database.url, [CONNECTION_LOST] * 2)
    notifier = Notifier(house, away)
    await notifier.lose_answer()
    notifier.fail()
    async with within("the release of orphaned leases"):
        await notifier.orphans.release_last()
    assert notifier.metrics.claims_returned == due
    assert await in_flight(house) == 0
    await away.close()


async def test_the_last_release_counts_a_loss_that_another_task_met(house: House, due: int) -> None:
    database = Database(house.database.url, pool_size=1)
    notifier = Notifier(house, database)
    await notifier.lose_answer()
    database.losses += 1
    async with within("the release of orphaned leases"):
        await notifier.orphans.release_last()
    assert notifier.metrics.claims_returned == due
    assert await in_flight(house) == 0
    await database.close()
