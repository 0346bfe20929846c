"""Fixtures of the notifier's tests: a receiver, and notifications as the evaluator's transaction writes them."""

from collections.abc import AsyncIterator

import pytest

from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.notifier.receiver import Receiver, running_receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of 127.0.0.1."""
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture
async def house(database: Database) -> House:
    """The organization under test, with shorthands for what surrounds the notifier."""
    return await House.build(database, SystemClock())
