"""The size of commits: it grows while usage of many gauges keeps coming, and no longer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from engine.ingest import pipeline as pipelines
from engine.ingest.batches import Batch, Outcome
from engine.ingest.commit_size import CommitSize
from engine.ingest.pipeline import Pipeline
from engine.limits import IngestLimits
from runtime.turns import of_loop
from tests.support.usage.pipelines import ACME, LIMIT, batch, pipeline, submit

# A loop for each test: a neighbour of one test would still count in the next.
pytestmark = pytest.mark.asyncio(loop_scope="function")

LIMITS = IngestLimits(commit_events=1_000, sustained_commit_events=2_000, sustained_commit_seconds=1.0)
FAST = 0.1  # seconds


def size_after(
    events: int = 1_000, gauges: int = 800, seconds: float = FAST, *, more_waits: bool = True, may_grow: bool = True
) -> int:
    """The limit after one commit."""
    size = CommitSize(LIMITS)
    size.note(events, gauges, seconds, more_waits=more_waits)
    return size.limit(may_grow=may_grow)


async def test_first_commit_has_the_usual_size() -> None:
    assert CommitSize(LIMITS).limit(may_grow=True) == 1_000


async def test_commit_is_larger_after_one_of_many_gauges_that_left_events_waiting() -> None:
    assert size_after() == 2_000
    assert size_after(gauges=251) == 2_000


async def test_commit_has_the_usual_size_where_a_larger_one_saves_nothing_or_delays_others() -> None:
    assert size_after(more_waits=False) == 1_000
    assert size_after(gauges=250) == 1_000, "each gauge gets four events"
    assert size_after(may_grow=False) == 1_000


async def test_larger_commit_takes_no_longer_than_the_limit() -> None:
    assert size_after(seconds=0.8) == 1_250
    assert size_after(seconds=1.2) == 1_000


async def test_commit_has_the_usual_size_again_as_soon_as_nothing_is_left_waiting() -> None:
    size = CommitSize(LIMITS)
    size.note(1_000, 800, FAST, more_waits=True)
    size.note(2_000, 1_500, FAST, more_waits=True)
    assert size.limit(may_grow=True) == 2_000
    size.note(1_500, 1_200, FAST, more_waits=False)
    assert size.limit(may_grow=True) == 1_000


@dataclass
class Sparse:
    """Replaces the database: each event of a commit moves a gauge of its own. commits: the number of their events."""

    gauges_moved: int = 0
    commits: list[int] = field(default_factory=list)

    async def together(self, batches: Sequence[Batch]) -> list[Outcome]:
        await asyncio.sleep(0)
        self.commits.append(sum(len(batch.events) for batch in batches))
        self.gauges_moved = self.commits[-1]
        return [Outcome(accepted=len(batch.events)) for batch in batches]


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> Sparse:
    """The committer of all pipelines of a test."""
    made = Sparse()
    monkeypatch.setattr(pipelines, "Committer", lambda *_, **__: made)
    return made


SMALL = IngestLimits(
    commit_events=10, sustained_commit_events=20, sustained_commit_seconds=60.0, commit_events_beside_light=4
)


async def send(lanes: Pipeline, batches: int) -> None:
    """Sends batches of five events at once."""
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(submit(lanes, ACME, batch(f"c{number}", 5)) for number in range(batches)))


async def test_commits_of_a_queue_grow_up_to_the_limit(sparse: Sparse) -> None:
    lanes = pipeline(pending=1_000, limits=SMALL)
    await send(lanes, 12)
    assert sparse.commits == [10, 20, 20, 10]
    await send(lanes, 2)
    assert sparse.commits[4:] == [10]


async def test_commits_do_not_grow_while_a_change_of_the_rules_waits(sparse: Sparse) -> None:
    changing = {ACME.organization_id}
    lanes = pipeline(pending=1_000, limits=SMALL, is_changing=changing.__contains__)
    await send(lanes, 8)
    assert sparse.commits == [10, 10, 10, 10]
    changing.clear()
    await send(lanes, 8)
    assert sparse.commits[4:] == [10, 20, 10]


async def test_commits_do_not_grow_beside_a_light_neighbour(sparse: Sparse) -> None:
    lanes = pipeline(pending=1_000, limits=SMALL)
    of_loop().begin_call(77)
    await send(lanes, 8)
    assert max(sparse.commits) <= SMALL.commit_events_beside_light
    of_loop().end_call(77)
