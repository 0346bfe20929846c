"""Puts, usage and changes of alerts at the same time: each alert ends in the state that the stored facts ask for."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.usage.caller import Caller, beside
from tests.support.usage.concurrent_puts import ConcurrentPuts

STORIES = [0, *range(100, 100 + int(os.environ.get("TIDEMARK_TEST_STORIES", "0")))]
ROUNDS = 14
CALLS = 20  # at the same time


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """Another server on the same database."""
    async with beside(caller) as second:
        yield second


@pytest.mark.parametrize("seed", STORIES)
async def test_alerts_are_in_the_state_of_the_stored_facts_after_puts_at_the_same_time(
    caller: Caller, other: Caller, seed: int
) -> None:
    story = ConcurrentPuts(seed, [caller, other])
    await story.begin()
    for _ in range(ROUNDS):
        await story.round(CALLS)
        expected = await story.expected()
        assert await story.stored(list(expected)) == expected
        assert await story.notified(list(expected)) == expected
