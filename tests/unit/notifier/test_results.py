"""The queue of results between attempts and recorder."""

import asyncio
import uuid
from datetime import timedelta

from notifier.results import Results, Return
from store.deliveries.claims import Claim, ClaimedEndpoint

ENDPOINT = ClaimedEndpoint(1, "whe_1", "https://example.com", (), (), None)


def a_result(number: int) -> Return:
    claim = Claim(ENDPOINT, f"whd_{number}", "ntf_1", uuid.uuid4(), "AUTOMATIC", 0, 0, timedelta(0), "{}")
    return Return(claim, timedelta(0))


def test_results_stay_until_they_are_removed() -> None:
    results, one, two = Results(), a_result(1), a_result(2)
    results.add(one)
    results.add(two)
    assert results.first(1) == [one]
    assert results.first(5) == [one, two]
    results.remove([one])
    assert results.still_waiting([one, two]) == [two]
    assert len(results) == 1


def test_results_that_are_moved_back_come_after_those_that_were_added_later() -> None:
    results, one, two, three = Results(), a_result(1), a_result(2), a_result(3)
    for result in (one, two, three):
        results.add(result)
    results.move_back([one, two])
    assert results.first(3) == [three, one, two]


async def test_a_wait_ends_when_a_result_is_added_and_is_over_while_one_waits() -> None:
    results, one = Results(), a_result(1)
    waiting = asyncio.create_task(results.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    results.add(one)
    async with asyncio.timeout(10):
        await waiting
        await results.wait()
    results.remove([one])
    waiting = asyncio.create_task(results.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
