"""Puts that need no evaluation leave what an evaluation of their customer leaves.

Two organizations make the same random calls. The puts of one are all evaluated, and those of the other only where
alerts may have something to report. All that is stored and answered has to be the same.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from engine.limits import BackfillLimits
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.puts.puts import Puts
from runtime.clock import ManualClock
from store.accounts.quiet_puts import QuietPut
from store.identity.organizations import Organization
from store.rules.facts_before_puts import FactsBefore
from tests.support.postgres.only_one_server import quiet_puts
from tests.support.usage.backfill_workers import Workers
from tests.support.usage.caller import Caller, beside
from tests.support.usage.put_stories import PutStory
from tests.support.usage.twin_stories import new_twin

STORIES = [*range(2), *range(100, 100 + int(os.environ.get("TIDEMARK_TEST_STORIES", "0")))]
STEPS = 60  # of a story

Find = Callable[[Puts[Any, Any], int, Any, Mapping[str, FactsBefore]], QuietPut | None]


class Evaluating:
    """Puts of `organization_id` are never quiet. calls: how many puts of each organization were evaluated."""

    def __init__(self) -> None:
        self.organization_id = 0
        self.calls: Counter[int] = Counter()

    def finding(self, find: Find) -> Find:
        """In place of the method that finds whether a put may be quiet."""

        def found(
            puts: Puts[Any, Any], organization_id: int, fact: object, known: Mapping[str, FactsBefore]
        ) -> QuietPut | None:
            return None if organization_id == self.organization_id else find(puts, organization_id, fact, known)

        return found


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """Another server on the same database."""
    async with beside(caller) as second:
        yield second


@pytest.fixture
def evaluating(monkeypatch: pytest.MonkeyPatch) -> Evaluating:
    """Also keeps background tasks from evaluations, whose time would differ between the organizations."""

    async def never(*_: object) -> bool:
        return False

    found, evaluate = Evaluating(), CustomerEvaluations.evaluate

    async def counted(self: CustomerEvaluations, organization: Organization, customer_id: str) -> None:
        found.calls[organization.organization_id] += 1
        await evaluate(self, organization, customer_id)

    monkeypatch.setattr(Puts, "_quiet", found.finding(Puts._quiet))
    monkeypatch.setattr(CustomerEvaluations, "evaluate", counted)
    monkeypatch.setattr(CustomerEvaluations, "run_once", never)
    return found


@quiet_puts
@pytest.mark.parametrize("seed", STORIES)
async def test_quiet_puts_leave_what_evaluations_leave(
    caller: Caller, other: Caller, clock: ManualClock, workers: Workers, evaluating: Evaluating, seed: int
) -> None:
    twins = [await new_twin(caller, other, clock) for _ in range(2)]
    [[evaluating.organization_id]] = await twins[0].callers[0].rows("SELECT %(organization_id)s")
    [[quiet_id]] = await twins[1].callers[0].rows("SELECT %(organization_id)s")
    story = PutStory(seed, clock, twins, workers(BackfillLimits()), with_ends=seed % 2 == 1)
    for _ in range(STEPS):
        await story.go_on()
        evaluated, quiet = [await one.stored(levels=True) for one in twins]
        for table, rows in evaluated.items():
            assert quiet[table] == rows
    assert evaluating.calls[quiet_id] < evaluating.calls[evaluating.organization_id]
