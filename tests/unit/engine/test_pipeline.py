"""The pipeline keeps no failed and no finished batch in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.ingest import pipeline as pipelines
from engine.ingest.batches import Batch, Outcome
from engine.ingest.pending import Overloaded, PendingEvents
from engine.ingest.pipeline import Pipeline
from engine.limits import DEFAULT_LIMITS, IngestLimits
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
LIMIT = 10  # seconds for each step of a test


@dataclass
class Commits:
    """Replaces the database: commits end as the test says.

    failures: the exceptions of the next commits. held: commits wait for it. log: customers whose events began, or
    ended, to be committed.
    """

    failures: list[BaseException] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held.set()

    async def commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        names = [batch.events[0].customer_id for batch in batches]
        self.log += [("began", name) for name in names]
        await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.log += [("ended", name) for name in names]
        return [Outcome(accepted=len(batch.events)) for batch in batches]


def batch(customer: str = "acme", size: int = 1) -> Batch:
    return Batch([UsageEvent(f"e{n}", customer, NOW, "calls", Decimal(1), None, None, None, {}) for n in range(size)])


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    """The committer of all pipelines of a test."""
    made = Commits()
    monkeypatch.setattr(pipelines, "Committer", lambda *_, **__: made)
    return made


def pipeline(writers: int = 1, pending: int = 10, limits: IngestLimits = DEFAULT_LIMITS.ingest) -> Pipeline:
    nothing: Any = None
    # Twice as many as one organization may have: only the organization's limit is reached in these tests.
    waiting = PendingEvents(2 * pending, pending)
    return Pipeline(
        nothing,
        ManualClock(NOW),
        timedelta(days=34),
        RulesRegistry(),
        writers=writers,
        pending=waiting,
        gate=FairSemaphore(2 * writers),
        limits=limits,
    )


async def submit(lanes: Pipeline, organization: Organization, batch: Batch) -> Outcome:
    """Commits a batch as a unary call does."""
    room = await lanes.admit(organization, len(batch.events))
    try:
        return await lanes.submit(organization, batch, room)
    finally:
        room.give_up()


ACME = Organization(1, "acme")


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
