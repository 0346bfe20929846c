"""The cache of API keys is bounded, and upkeep is retried soon after a failure."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import upkeep
from engine.upkeep import Upkeep
from runtime.backoff import Backoff
from runtime.clock import ManualClock
from server.authentication import api_keys
from server.authentication.api_keys import Authenticator
from server.calls.errors import Unauthenticated
from store.identity.callers import Caller
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from tests.support.waiting import within

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


class NoDatabase:
    """Provides transactions that read nothing."""

    @asynccontextmanager
    async def transaction(self) -> Any:
        yield None


async def test_the_cache_of_keys_is_bounded_when_keys_are_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    read_hashes: list[bytes] = []

    async def find_caller(_: object, key_hash: bytes) -> None:
        read_hashes.append(key_hash)

    monkeypatch.setattr(api_keys, "find_caller", find_caller)
    database: Any = NoDatabase()
    known = Authenticator(database, ManualClock(NOW), listens_to_loopback_only=True, cache_size=3)

    async def guess(number: int) -> None:
        with pytest.raises(Unauthenticated):
            await known.identify(f"Bearer guess-{number}")

    for number in range(5):
        await guess(number)
    assert len(known._cache) == 3
    # The newest are cached as unknown; the oldest are read again.
    for number, lookups in ((4, 5), (2, 5), (0, 6)):
        await guess(number)
        assert len(read_hashes) == lookups
    assert len(known._cache) == 3


async def test_calls_that_wait_for_one_key_share_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []
    may_end, failures = asyncio.Event(), [DatabaseUnavailable("gone")]
    caller = Caller(Organization(1, "acme"), "key-1")

    async def find_caller(_: object, key_hash: bytes) -> Caller:
        reads.append(key_hash)
        await may_end.wait()
        if failures:
            raise failures.pop()
        return caller

    monkeypatch.setattr(api_keys, "find_caller", find_caller)
    database: Any = NoDatabase()
    known = Authenticator(database, ManualClock(NOW), listens_to_loopback_only=True)

    async def calls(number: int) -> list[asyncio.Task[Caller]]:
        started = [asyncio.create_task(known.identify("Bearer one")) for _ in range(number)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return started

    failing = await calls(3)
    failing[0].cancel()  # the one that began the read
    may_end.set()
    ended = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError, DatabaseUnavailable, DatabaseUnavailable]
    assert len(reads) == 1
    may_end.clear()
    serving = [*await calls(3), asyncio.create_task(known.identify("Bearer two"))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(reads) == 3, "another key does not wait for this one"
    may_end.set()
    assert await asyncio.gather(*serving) == [caller] * 4
    assert await known.identify("Bearer one") == caller
    assert len(reads) == 3
    assert not known._reading


class RecordedBackoff(Backoff):
    """Records the waits instead of waiting."""

    def __init__(self, first: float, longest: float, *, random_part: float) -> None:
        super().__init__(first, longest, random_part=random_part)
        self.pauses: list[float] = []

    def next(self) -> float:
        self.pauses.append(super().next())
        return 0.0


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), ZeroDivisionError()])
async def test_failed_upkeep_is_retried_after_the_retry_interval(failure: Exception) -> None:
    outcomes = [None, None, failure, None]  # of the start, and of each later round

    class Scripted(Upkeep):
        async def run_once(self) -> None:
            if (error := outcomes.pop(0)) is not None:
                raise error

    database: Any = NoDatabase()
    backoff = RecordedBackoff(upkeep.RETRY_INTERVAL, upkeep.RETRY_INTERVAL, random_part=0.0)
    one = Scripted(database, ManualClock(NOW), timedelta(days=1), timedelta(days=1), backoff=backoff)
    pauses = backoff.pauses
    await one.start()
    # The wake-up replaces the interval of an hour. The failed round waits by itself.
    for left in (3, 2, 0):
        async with within("a pause"):
            while len(outcomes) > left or not one.task.pause:  # noqa: ASYNC110
                await asyncio.sleep(0)
        pauses.append(one.task.pause)
        one.task.wake()
    await one.stop()
    assert pauses == [upkeep.INTERVAL, upkeep.INTERVAL, upkeep.RETRY_INTERVAL, upkeep.INTERVAL]
