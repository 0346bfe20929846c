"""Claims that are committed while their notifier loses the answer: given back at once, not when the lease ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from enum import StrEnum

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.metrics import Metrics
from notifier.unconfirmed import TOKEN_LIMIT, UnconfirmedClaims
from store import delivery_queue, outbox
from store.database import Database
from store.deliveries import DeliveryStatus
from store.delivery_queue import ENDPOINT_IN_FLIGHT_LIMIT, Claim, Order
from store.failures import CONNECTION_LOST, LOCK_TIMEOUT, Failure, unavailable
from tests.integration.notifier.house import House, running_notifier
from tests.integration.notifier.receiver import Receiver, hang
from tests.waiting import within

LEASE = timedelta(minutes=5)  # beyond every limit of these tests
AT_ONCE = (0.0, 0.0)  # the pauses between three releases


class ClaimedWith(StrEnum):
    """What a transaction did besides its claim."""

    FAN_OUT = "fan-out"
    NOTHING = "nothing"
    RESULTS = "results"


# What this transaction has leased, and what else it has written.
_CLAIMED = text("""
SELECT (SELECT count(*) FROM attempt WHERE xmin = pg_current_xact_id()::xid) AS results,
       (SELECT count(*) FROM delivery_live WHERE create_time = now()) AS fanned_out
FROM delivery_live
WHERE lease_token IS NOT NULL AND xmin = pg_current_xact_id()::xid
LIMIT 1
""")


class LosesAnswers(Database):
    """A database whose commits succeed, but whose answers to claims are lost."""

    def __init__(self, url: str, lost: Iterable[ClaimedWith], on_lost: Callable[[], None] = lambda: None) -> None:
        """lost: of which claims, each once; the next of a kind is answered."""
        super().__init__(url, pool_size=4)
        self.left = list(lost)
        self._on_lost = on_lost

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        claimed = None
        async with super().transaction() as connection:
            yield connection
            if self.left:
                claimed = await _claimed_with(connection)
        if claimed in self.left:
            self.left.remove(claimed)
            self._on_lost()
            raise unavailable(CONNECTION_LOST)


async def _claimed_with(connection: AsyncConnection) -> ClaimedWith | None:
    """What the claim of this transaction was made with; None when it claimed nothing."""
    row = (await connection.execute(_CLAIMED)).one_or_none()
    if row is None:
        return None
    if row.results:
        return ClaimedWith.RESULTS
    return ClaimedWith.FAN_OUT if row.fanned_out else ClaimedWith.NOTHING


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


async def fan_out(house: House) -> None:
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 100)


async def claim(database: Database, claims: UnconfirmedClaims, error: Exception | None = None) -> list[Claim]:
    """Claims one delivery; then `error`, if any, is all that the notifier hears."""
    order = Order(1, LEASE)
    with claims.watch(order):
        async with database.transaction() as connection:
            claimed = await delivery_queue.claim(connection, order)
        if error is not None:
            raise error
    return claimed


async def lose_claim(database: Database, claims: UnconfirmedClaims) -> None:
    """Claims one delivery, of which the notifier does not hear."""
    with pytest.raises(Exception, match="lost"):
        await claim(database, claims, unavailable(CONNECTION_LOST))


@pytest.fixture
async def leased(house: House) -> int:
    """An endpoint with four deliveries that may be claimed, and their number."""
    await house.endpoint("https://example.com/hook")
    await house.notify(ENDPOINT_IN_FLIGHT_LIMIT)
    await fan_out(house)
    return ENDPOINT_IN_FLIGHT_LIMIT


@pytest.mark.parametrize(
    ("lost", "number"),
    [
        ([ClaimedWith.FAN_OUT], 1),
        ([ClaimedWith.NOTHING], 1),
        # The first claims come with the fan-out and fill the endpoint's share; the next ones with their results.
        ([ClaimedWith.RESULTS], 2 * ENDPOINT_IN_FLIGHT_LIMIT),
        ([ClaimedWith.FAN_OUT, ClaimedWith.NOTHING, ClaimedWith.RESULTS], 2 * ENDPOINT_IN_FLIGHT_LIMIT),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
async def test_a_claim_whose_answer_is_lost_is_claimed_again_before_its_lease_ends(
    house: House, receiver: Receiver, lost: list[ClaimedWith], number: int
) -> None:
    await house.endpoint(receiver.url)
    if ClaimedWith.FAN_OUT not in lost and number == 1:
        await house.notify(number)
        await fan_out(house)
    database = LosesAnswers(house.database.url, lost)
    async with running_notifier(house, database=database):
        if ClaimedWith.FAN_OUT in lost or number > 1:
            await house.notify(number)
        await house.settled(DeliveryStatus.DELIVERED, number)
    assert database.left == [], "every answer was lost"
    assert len(receiver.arrivals) == number, "no attempt of a lost claim has begun"
    assert set((await house.in_flight()).values()) == {0}


async def test_a_claim_whose_answer_is_lost_at_the_end_is_given_back_by_the_drain(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    lost = asyncio.Event()
    released = asyncio.Event()
    receiver.always_answer(hang(released))
    database = LosesAnswers(house.database.url, [ClaimedWith.NOTHING], on_lost=lost.set)
    await house.notify()
    await fan_out(house)
    async with running_notifier(house, database=database) as stop:
        async with within("a claim"):
            await lost.wait()
        stop.set()
    [waiting] = await house.deliveries()
    assert waiting.next_attempt_time is not None, "it is due for another notifier"
    assert set((await house.in_flight()).values()) == {0}


async def test_a_claim_is_given_back_when_it_is_committed_after_the_first_release(house: House, leased: int) -> None:
    claims = UnconfirmedClaims(house.database, Metrics(), AT_ONCE)
    order = Order(leased, LEASE)
    async with house.database.transaction() as connection:
        await delivery_queue.claim(connection, order)
        with suppress(Exception), claims.watch(order):
            raise unavailable(CONNECTION_LOST)
        assert await claims.release() == 0, "it is not committed yet"
    assert await claims.release() == leased
    assert set((await house.in_flight()).values()) == {0}


async def test_only_what_may_be_committed_unheard_is_given_back(house: House, leased: int) -> None:
    claims = UnconfirmedClaims(house.database, Metrics())
    await claim(house.database, claims)
    assert not claims.any_due()
    with suppress(Exception):
        await claim(house.database, claims, unavailable(LOCK_TIMEOUT))
    assert not claims.any_due(), "the server has said that it rolled back"
    with suppress(Exception):
        await claim(house.database, claims, RuntimeError("a fault of ours"))
    await lose_claim(house.database, claims)
    assert claims.any_due()
    assert await claims.release() == 2
    assert set((await house.in_flight()).values()) == {leased - 2}


async def test_claims_stay_unconfirmed_while_the_database_is_away(house: House, leased: int) -> None:
    away = FailsFirst(house.database.url, [CONNECTION_LOST] * 10)
    claims = UnconfirmedClaims(away, Metrics())
    for _ in range(leased):
        await lose_claim(house.database, claims)
    while away.left:
        with pytest.raises(Exception, match="lost"):
            await claims.release()
    assert await claims.release() == leased
    assert not claims.any_due(), "they have a pause"
    await away.close()


async def test_a_lock_that_is_held_for_long_postpones_the_release(house: House, leased: int) -> None:
    locked = FailsFirst(house.database.url, [LOCK_TIMEOUT])
    claims = UnconfirmedClaims(locked, Metrics())
    await lose_claim(house.database, claims)
    with pytest.raises(Exception, match="lock"):
        await claims.release()
    assert not claims.any_due(), "the worker goes on with the rest"
    await claims.release_all()
    assert set((await house.in_flight()).values()) == {0}
    await locked.close()


async def test_the_drain_tries_until_the_database_answers(house: House, leased: int) -> None:
    away = FailsFirst(house.database.url, [CONNECTION_LOST] * 2)
    metrics = Metrics()
    claims = UnconfirmedClaims(away, metrics)
    await lose_claim(house.database, claims)
    async with within("the release of a claim"):
        await claims.release_all()
    assert metrics.claims_returned == 1
    assert set((await house.in_flight()).values()) == {0}
    await away.close()


async def test_a_token_is_forgotten_after_its_last_release(house: House) -> None:
    claims = UnconfirmedClaims(house.database, Metrics(), AT_ONCE)
    await lose_claim(house.database, claims)
    for _ in range(1 + len(AT_ONCE)):
        assert claims.any_due()
        assert await claims.release() == 0
    assert not claims.any_due()


async def test_the_oldest_tokens_are_forgotten_when_there_are_too_many(house: House, leased: int) -> None:
    claims = UnconfirmedClaims(house.database, Metrics())
    await lose_claim(house.database, claims)
    await lose_claim(house.database, claims)
    for _ in range(TOKEN_LIMIT - 1):
        with suppress(Exception), claims.watch(Order(1, LEASE)):
            raise unavailable(CONNECTION_LOST)
    assert await claims.release() == 1, "the first one is left to its lease"
    assert set((await house.in_flight()).values()) == {1}
