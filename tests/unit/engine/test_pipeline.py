"""The pipeline: batches wait for a common commit, and no failed and no finished batch stays in memory."""

import asyncio

import pytest

from engine.ingest.batches import Batch
from engine.ingest.pending import Overloaded
from engine.limits import IngestLimits
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from tests.support.usage.pipelines import ACME, LIMIT, Commits, batch, pipeline, submit

# A loop for each test: a neighbour of one test would still count in the next.
pytestmark = pytest.mark.asyncio(loop_scope="function")


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), ValueError("a bug")])
async def test_events_of_a_failed_commit_leave_the_pipeline(commits: Commits, error: Exception) -> None:
    lanes = pipeline()
    for _ in range(5):
        commits.failures = [error]
        async with asyncio.timeout(LIMIT):
            with pytest.raises(type(error)):
                await submit(lanes, ACME, batch(size=10))
    # The full limit is accepted immediately, as before the failures.
    async with asyncio.timeout(LIMIT):
        done = await asyncio.gather(submit(lanes, ACME, batch(size=5)), submit(lanes, ACME, batch(size=5)))
    assert [one.accepted for one in done] == [5, 5]


async def test_pending_events_are_counted_until_they_are_committed(commits: Commits) -> None:
    lanes = pipeline()
    for _ in range(3):
        commits.held.clear()
        tasks = [asyncio.create_task(submit(lanes, ACME, batch(size=5))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await submit(lanes, ACME, batch())
        commits.held.set()
        async with asyncio.timeout(LIMIT):
            assert [one.accepted for one in await asyncio.gather(*tasks)] == [5, 5]


async def test_a_cancelled_call_does_not_cancel_its_commit(commits: Commits) -> None:
    lanes = pipeline()
    commits.held.clear()
    leaving = asyncio.create_task(submit(lanes, ACME, batch(size=10)))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await lanes.drain()
        assert (await submit(lanes, ACME, batch(size=10))).accepted == 10
    assert commits.log == [(what, "acme") for what in ("began", "ended") * 2]


async def test_a_cancelled_writer_is_replaced(commits: Commits) -> None:
    lanes = pipeline()
    commits.failures = [asyncio.CancelledError()]
    leaving = asyncio.create_task(submit(lanes, ACME, batch(size=10)))
    async with asyncio.timeout(LIMIT):
        for _ in range(5):
            await asyncio.sleep(0)
        await lanes.drain()
        assert not commits.failures
        leaving.cancel()
        assert (await submit(lanes, ACME, batch(size=10))).accepted == 10


async def test_a_batch_fails_after_all_its_parts_have_ended(commits: Commits) -> None:
    lanes = pipeline(writers=2, pending=1000)
    customers = [f"c{number}" for number in range(20)]  # customers of both writers
    commits.failures = [DatabaseUnavailable("gone")]
    events = [one.events[0] for one in map(batch, customers)]
    async with asyncio.timeout(LIMIT):
        with pytest.raises(DatabaseUnavailable):
            await submit(lanes, ACME, Batch(events))
    assert [what for what, _ in commits.log].count("ended") == 1
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, Batch(events))).accepted == 20


async def test_an_organization_keeps_its_writers_during_a_commit_when_idle_ones_are_removed(
    commits: Commits,
) -> None:
    lanes = pipeline(pending=100, limits=IngestLimits(idle_organizations=1))
    commits.held.clear()
    first = asyncio.create_task(submit(lanes, ACME, batch("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    other = asyncio.create_task(submit(lanes, Organization(2, "other"), batch("other")))
    await asyncio.sleep(0)
    # Events of a customer are committed in their order: not concurrently with earlier ones.
    second = asyncio.create_task(submit(lanes, ACME, batch("second")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert ("began", "second") not in commits.log
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(first, other, second)
    assert commits.log.index(("began", "second")) > commits.log.index(("ended", "first"))


async def test_a_group_commit_takes_no_more_events_than_its_limit(commits: Commits) -> None:
    lanes = pipeline(pending=1000, limits=IngestLimits(commit_events=4))
    commits.held.clear()
    sizes = {"a": 1, "b": 3, "c": 2, "d": 1, "e": 9, "f": 1}
    tasks = [asyncio.create_task(submit(lanes, ACME, batch(name, size))) for name, size in sizes.items()]
    for _ in range(3):
        await asyncio.sleep(0)
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*tasks)
    groups = "".join(name if what == "began" else "|" for what, name in commits.log).replace("||", "|")
    assert groups == "ab|cd|e|f|"
