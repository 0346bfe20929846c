"""The pipeline beside others: smaller commits while a light neighbour has calls, and turns of organizations."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from engine.ingest import pipeline as pipelines
from engine.ingest.batches import Batch, Outcome
from engine.ingest.pending import PendingEvents
from engine.ingest.pipeline import LARGE_COMMIT
from engine.limits import IngestLimits
from evaluator.events import UsageEvent
from runtime.fair_semaphore import FairSemaphore
from runtime.turns import of_loop
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from tests.support.usage.pipelines import ACME, LIMIT, NOW, batch, pipeline, submit

# A loop for each test: a neighbour of one test would still count in the next.
pytestmark = pytest.mark.asyncio(loop_scope="function")


@dataclass
class Parts:
    """Replaces the database: notes the ids of the events of each commit; the commit of one event fails.

    Of each commit, the first event is a duplicate. observe: called in each commit; its results are `observed`.
    """

    failing: str | None = None
    commits: list[list[str]] = field(default_factory=list)
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    observe: Callable[[], int] = field(default=lambda: 0)
    observed: list[int] = field(default_factory=list)
    gauges_moved: int = 0

    async def together(self, batches: Sequence[Batch]) -> list[Outcome]:
        await self.may_go.wait()
        self.observed.append(self.observe())
        self.commits.append([event.event_id for batch in batches for event in batch.events])
        if self.failing in self.commits[-1]:
            raise DatabaseUnavailable("gone")
        return [Outcome(accepted=len(batch.events) - 1, duplicates=[0]) for batch in batches]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The committer of all pipelines of a test."""
    made = Parts()
    monkeypatch.setattr(pipelines, "Committer", lambda *_, **__: made)
    return made


SMALL_BESIDE_LIGHT = IngestLimits(commit_events=100, commit_events_beside_light=4)
LIGHT = 77


async def test_a_large_batch_is_committed_in_parts_while_a_light_neighbour_has_a_call(parts: Parts) -> None:
    lanes = pipeline(pending=1000, limits=SMALL_BESIDE_LIGHT)
    of_loop().begin_call(LIGHT)
    large = asyncio.create_task(submit(lanes, ACME, batch(size=10)))
    small = [asyncio.create_task(submit(lanes, ACME, batch(f"c{number}", 2))) for number in range(3)]
    await asyncio.sleep(0)
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        outcome = await large
        await asyncio.gather(*small)
    assert parts.commits == [
        ["e0", "e1", "e2", "e3"],
        ["e4", "e5", "e6", "e7"],
        ["e8", "e9", "e0", "e1"],  # the rest, with the next batch
        ["e0", "e1", "e0", "e1"],
    ]
    assert (outcome.accepted, outcome.duplicates) == (7, [0, 4, 8]), "indexes are those in the batch"
    of_loop().end_call(LIGHT)
    of_loop().used_up(LIGHT)  # it does not count as a light neighbour any more
    parts.commits.clear()
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, batch(size=10))).duplicates == [0]
    assert [len(commit) for commit in parts.commits] == [10], "without a light neighbour it is one commit"


async def test_what_is_left_of_a_large_batch_is_not_tried_after_a_part_has_failed(parts: Parts) -> None:
    lanes = pipeline(pending=20, limits=SMALL_BESIDE_LIGHT)
    parts.may_go.set()
    of_loop().begin_call(LIGHT)
    parts.failing = "e5"
    for _ in range(3):  # nothing of it stays pending
        parts.commits.clear()
        async with asyncio.timeout(LIMIT):
            with pytest.raises(DatabaseUnavailable):
                await submit(lanes, ACME, batch(size=20))
        assert parts.commits == [["e0", "e1", "e2", "e3"], ["e4", "e5", "e6", "e7"]]
    parts.failing = None
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, batch(size=20))).accepted == 15
    of_loop().end_call(LIGHT)


async def test_room_of_a_committed_part_is_free_before_the_rest_is_committed(parts: Parts) -> None:
    pending = PendingEvents(100, 50)
    lanes = pipeline(waiting=pending, limits=SMALL_BESIDE_LIGHT)
    of_loop().begin_call(LIGHT)
    parts.observe = lambda: pending.total
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        await submit(lanes, ACME, batch(size=10))
    assert parts.observed == [10, 6, 2]
    assert pending.total == 0
    of_loop().end_call(LIGHT)


async def test_an_organization_that_holds_nothing_commits_while_another_has_all_it_may(parts: Parts) -> None:
    lanes = pipeline(writers=2, pending=10_000)
    noisy = [asyncio.create_task(submit(lanes, ACME, batch(f"c{number}", 20))) for number in range(100)]
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = asyncio.create_task(submit(lanes, Organization(2, "quiet"), batch("quiet")))
    for _ in range(5):
        await asyncio.sleep(0)
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        await quiet
        position = parts.commits.index(["e0"])
        await asyncio.gather(*noisy)
    assert position <= 2, "it waits for no further commit of the other"


async def test_other_organizations_commit_between_the_commits_that_divide_a_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order, quiet_waits = list[str](), asyncio.Event()

    class Dividing:
        """Replaces the database: what `noisy` sends takes three commits."""

        gauges_moved = 0

        def __init__(self, *_: object, between_commits: Callable[[], Awaitable[None]], **__: object) -> None:
            self._between_commits = between_commits

        async def together(self, batches: Sequence[Batch]) -> list[Outcome]:
            if batches[0].events[0].customer_id == "noisy":
                for number in range(3):
                    order.append(f"noisy {number}")
                    await quiet_waits.wait()
                    await self._between_commits()
            else:
                order.append("quiet")
            return [Outcome() for _ in batches]

    monkeypatch.setattr(pipelines, "Committer", Dividing)
    gate = FairSemaphore(1)
    lanes = pipeline(gate=gate)
    noisy = asyncio.create_task(submit(lanes, ACME, batch("noisy")))
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = asyncio.create_task(submit(lanes, Organization(2, "quiet"), batch("quiet")))
    for _ in range(5):
        await asyncio.sleep(0)
    quiet_waits.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(noisy, quiet)
        await lanes.drain()
    assert order == ["noisy 0", "quiet", "noisy 1", "noisy 2"]
    assert gate.free == 1


def one_event(event_id: str) -> UsageEvent:
    """An event with this id."""
    return UsageEvent(event_id, "acme", NOW, "calls", Decimal(1), None, None, None, {})


async def test_large_commits_of_many_organizations_leave_a_reserved_seat_to_a_small_one(parts: Parts) -> None:
    lanes = pipeline(pending=100_000, gate=FairSemaphore(4, reserved=1))
    floods = [
        asyncio.create_task(submit(lanes, Organization(10 + number, "noisy"), batch(size=LARGE_COMMIT + 1)))
        for number in range(8)
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = asyncio.create_task(submit(lanes, ACME, Batch([one_event("quiet")])))
    for _ in range(5):
        await asyncio.sleep(0)
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(quiet, *floods)
    assert parts.commits.index(["quiet"]) <= 3, "it waits for none of the commits that wait"
