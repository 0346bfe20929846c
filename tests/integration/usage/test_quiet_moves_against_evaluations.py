"""Usage that settles quiet gauges leaves what the evaluation of all stale gauges leaves.

Two organizations make the same random calls. Usage of one evaluates every stale gauge, and usage of the other only
those that need it. All that is stored and answered has to be the same.
"""

import os
from collections.abc import AsyncIterator, Sequence

import pytest

from engine.evaluation.subjects import Movement
from engine.ingest.quiet_moves import settle_quiet_moves
from engine.limits import BackfillLimits
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.rules.transaction import Transaction
from runtime.clock import ManualClock
from store.usage.gauge_moves import Moved
from tests.support.usage.backfill_workers import Workers
from tests.support.usage.caller import Caller, beside
from tests.support.usage.twin_stories import TwinStory, new_twin

WITH_QUIET_GAUGES = [2, 9]  # stories that have more than ten of them; others may have none
STORIES = [*WITH_QUIET_GAUGES, *range(100, 100 + int(os.environ.get("TIDEMARK_TEST_STORIES", "0")))]
STEPS = 50  # of a story


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """Another server on the same database."""
    async with beside(caller) as second:
        yield second


class Settling:
    """Usage of `evaluating` evaluates every stale gauge; settled: how many gauges that of others has settled."""

    def __init__(self) -> None:
        self.evaluating = 0
        self.settled = 0

    async def settle(
        self, transaction: Transaction, stale: Sequence[tuple[Movement, Moved]]
    ) -> list[tuple[Movement, Moved]]:
        """In place of `settle_quiet_moves`."""
        if transaction.organization_id == self.evaluating:
            return list(stale)
        left = await settle_quiet_moves(transaction, stale)
        self.settled += len(stale) - len(left)
        return left


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> Settling:
    """Also keeps background tasks from evaluations, whose time would differ between the organizations."""

    async def never(*_: object) -> bool:
        return False

    found = Settling()
    monkeypatch.setattr("engine.ingest.counting.settle_quiet_moves", found.settle)
    monkeypatch.setattr(CustomerEvaluations, "run_once", never)
    return found


@pytest.mark.parametrize("seed", STORIES)
async def test_quiet_moves_leave_what_evaluations_leave(
    caller: Caller, other: Caller, clock: ManualClock, workers: Workers, settling: Settling, seed: int
) -> None:
    twins = [await new_twin(caller, other, clock) for _ in range(2)]
    [[settling.evaluating]] = await twins[0].callers[0].rows("SELECT %(organization_id)s")
    with_ends = seed % 2 == 1
    story = TwinStory(seed, clock, twins, workers(BackfillLimits()), with_ends=with_ends)
    for _ in range(STEPS):
        await story.go_on()
        evaluated, quiet = [await one.stored(levels=not with_ends) for one in twins]
        for table, rows in evaluated.items():
            assert quiet[table] == rows
    assert settling.settled or seed not in WITH_QUIET_GAUGES
