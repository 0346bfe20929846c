"""What stays in memory, and what a failure leaves behind: bounded caches, and a pause before the next try."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import upkeep
from engine.upkeep import Upkeep
from runtime.clock import ManualClock
from server.calls import identity
from server.calls.errors import Unauthenticated
from server.calls.identity import Identity
from store.postgres.database import DatabaseUnavailable
from tests.support.waiting import within

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


class NoDatabase:
    """Gives out transactions in which nothing is read."""

    @asynccontextmanager
    async def transaction(self) -> Any:
        yield None


async def test_keys_that_somebody_guesses_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[bytes] = []

    async def find_caller(_: object, key_hash: bytes) -> None:
        looked_up.append(key_hash)

    monkeypatch.setattr(identity, "find_caller", find_caller)
    monkeypatch.setattr(identity, "CACHE_SIZE", 3)
    database: Any = NoDatabase()
    known = Identity(database, ManualClock(NOW), listens_to_loopback_only=True)

    async def guess(number: int) -> None:
        with pytest.raises(Unauthenticated):
            await known.identify(f"Bearer guess-{number}")

    for number in range(5):
        await guess(number)
    assert len(known._cache) == 3
    # The newest are known to be unknown; the oldest are looked up again.
    for number, lookups in ((4, 5), (2, 5), (0, 6)):
        await guess(number)
        assert len(looked_up) == lookups
    assert len(known._cache) == 3


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), ZeroDivisionError()])
async def test_upkeep_that_failed_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            await asyncio.Event().wait()
        await sleep(0)

    outcomes = iter([None, None, failure, None])  # of the start, and of what follows

    class Scripted(Upkeep):
        async def run_once(self) -> None:
            if (error := next(outcomes)) is not None:
                raise error

    database: Any = NoDatabase()
    one = Scripted(database, ManualClock(NOW), timedelta(days=1), timedelta(days=1))
    monkeypatch.setattr("engine.upkeep.asyncio.sleep", paused)
    await one.start()
    async with within("four pauses"):
        while len(pauses) < 4:
            await sleep(0)
    await one.stop()
    assert pauses[:4] == [upkeep.INTERVAL, upkeep.INTERVAL, upkeep.RETRY_INTERVAL, upkeep.INTERVAL]
