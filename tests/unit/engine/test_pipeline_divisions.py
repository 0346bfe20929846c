"""The division of a commit that failed, beside which a writer goes on with batches of other customers."""

import asyncio
from decimal import Decimal

import pytest

from engine.ingest.batches import Batch, Outcome
from engine.ingest.pipeline import Pipeline
from engine.limits import IngestLimits
from evaluator.events import UsageEvent
from runtime.fair_semaphore import FairSemaphore
from runtime.turns import of_loop
from tests.support.usage.pipelines import ACME, LIMIT, NOW, Commits, batch, pipeline, submit

# A loop for each test: a neighbour of one test would still count in the next.
pytestmark = pytest.mark.asyncio(loop_scope="function")


def batch_of(*customers: str) -> Batch:
    """A batch with one event of each customer."""
    return Batch([UsageEvent("e", one, NOW, "calls", Decimal(1), None, None, None, {}) for one in customers])


async def begun(lanes: Pipeline, commits: Commits, *customers: str) -> asyncio.Task[Outcome]:
    """The call that submits a batch of these customers, when its commit has begun."""
    call = asyncio.create_task(submit(lanes, ACME, batch_of(*customers)))
    for _ in range(20):  # passes of the loop, of which the begin takes a few
        await asyncio.sleep(0)
    assert ("began", customers[0]) in commits.log
    return call


async def test_batches_of_other_customers_do_not_wait_for_a_division(commits: Commits) -> None:
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        bad = await begun(lanes, commits, "bad", "with it")
        assert (await submit(lanes, ACME, batch_of("other"))).accepted == 1
        assert (await submit(lanes, ACME, batch_of("another"))).accepted == 1
        assert not bad.done()
        commits.divided.set()
        assert (await bad).unrecorded == [0, 1]
        await lanes.drain()


async def test_batches_of_a_customer_in_division_wait_and_keep_their_order(commits: Commits) -> None:
    """Also those that wait only because they share a customer with a batch that waits."""
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        first = await begun(lanes, commits, "bad")
        commits.refused = set()
        waiting = [
            asyncio.create_task(submit(lanes, ACME, batch_of(*customers)))
            for customers in (("behind", "bad"), ("behind",), ("bad",))
        ]
        await asyncio.sleep(0)
        await submit(lanes, ACME, batch_of("free"))
        assert not any(one.done() for one in (first, *waiting))
        commits.divided.set()
        await asyncio.gather(first, *waiting)
    ended = [entry for entry in commits.log if entry[0] != "began"]
    assert ended == [
        ("ended", "free"),
        ("divided", "bad"),
        ("ended", "behind"),
        ("ended", "behind"),
        ("ended", "bad"),
    ]


async def test_a_drain_waits_for_a_division(commits: Commits) -> None:
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        bad = await begun(lanes, commits, "bad")
        await submit(lanes, ACME, batch_of("other"))
        draining = asyncio.create_task(lanes.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        commits.divided.set()
        await draining
        assert (await bad).unrecorded == [0]


async def test_a_second_division_of_a_writer_waits_in_its_order(commits: Commits) -> None:
    """The commit that fails beside a division is divided by the writer itself."""
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad", "worse"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        both = [await begun(lanes, commits, one) for one in ("bad", "worse")]
        other = asyncio.create_task(submit(lanes, ACME, batch_of("other")))
        commits.divided.set()
        assert [outcome.unrecorded for outcome in await asyncio.gather(*both)] == [[0], [0]]
        assert (await other).accepted == 1


async def test_a_failed_part_of_a_large_batch_is_divided_before_the_next_part(commits: Commits) -> None:
    limits = IngestLimits(commit_events_beside_light=2)
    lanes = pipeline(pending=100, limits=limits)
    commits.refused = {"acme"}
    turns = of_loop()
    turns.begin_call("neighbour")
    async with asyncio.timeout(LIMIT):
        outcome = await submit(lanes, ACME, batch(size=5))
    turns.end_call("neighbour")
    assert outcome.unrecorded == [0, 1, 2, 3, 4]
    assert commits.log == [("began", "acme"), ("divided", "acme")] * 3
