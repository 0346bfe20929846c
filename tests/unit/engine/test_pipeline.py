"""What the pipeline keeps in memory: nothing of what failed, and nothing of what is over."""

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
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
LIMIT = 10  # seconds that anything may take here


@dataclass
class Commits:
    """What stands in the place of the database: commits end as they are told to.

    failures: what the next commits raise. held: commits wait for it. log: which customers' events began, or ended, to
    be committed.
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
    """What all pipelines of a test commit to."""
    made = Commits()
    monkeypatch.setattr(pipelines, "Committer", lambda *_: made)
    return made


def pipeline(writers: int = 1, pending: int = 10) -> Pipeline:
    nothing: Any = None
    # Twice as many as one organization may have: the others never decide in these tests.
    waiting = PendingEvents(2 * pending, pending)
    return Pipeline(
        nothing,
        ManualClock(NOW),
        timedelta(days=34),
        RulesRegistry(),
        writers=writers,
        pending=waiting,
        gate=FairSemaphore(2 * writers),
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
async def test_what_failed_waits_no_more(commits: Commits, error: Exception) -> None:
    lanes = pipeline()
    for _ in range(5):
        commits.failures = [error]
        async with asyncio.timeout(LIMIT):
            with pytest.raises(type(error)):
                await submit(lanes, ACME, batch(size=10))
    # As much as may wait is taken at once, as if nothing had happened.
    async with asyncio.timeout(LIMIT):
        done = await asyncio.gather(submit(lanes, ACME, batch(size=5)), submit(lanes, ACME, batch(size=5)))
    assert [one.accepted for one in done] == [5, 5]


async def test_what_waits_is_counted_up_and_down(commits: Commits) -> None:
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


async def test_a_caller_that_leaves_takes_nothing_with_it(commits: Commits) -> None:
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


async def test_a_writer_that_is_cancelled_is_replaced(commits: Commits) -> None:
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


async def test_a_part_that_fails_is_told_once_the_others_have_ended(commits: Commits) -> None:
    lanes = pipeline(writers=2, pending=1000)
    customers = [f"c{number}" for number in range(20)]  # of both writers
    commits.failures = [DatabaseUnavailable("gone")]
    events = [one.events[0] for one in map(batch, customers)]
    async with asyncio.timeout(LIMIT):
        with pytest.raises(DatabaseUnavailable):
            await submit(lanes, ACME, Batch(events))
    assert [what for what, _ in commits.log].count("ended") == 1
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, Batch(events))).accepted == 20


async def test_an_organization_in_mid_commit_keeps_its_writers_when_idle_ones_go(
    commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "IDLE_ORGANIZATIONS", 1)
    lanes = pipeline(pending=100)
    commits.held.clear()
    first = asyncio.create_task(submit(lanes, ACME, batch("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    other = asyncio.create_task(submit(lanes, Organization(2, "other"), batch("other")))
    await asyncio.sleep(0)
    # A customer's events are committed in the order in which they came: not beside what came before.
    second = asyncio.create_task(submit(lanes, ACME, batch("second")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert ("began", "second") not in commits.log
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(first, other, second)
    assert commits.log.index(("began", "second")) > commits.log.index(("ended", "first"))


async def test_a_group_takes_what_fits_and_not_one_event_more(
    commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "MAX_COMMIT_EVENTS", 4)
    lanes = pipeline(pending=1000)
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
