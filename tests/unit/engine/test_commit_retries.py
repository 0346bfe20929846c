"""A commit that is tried again lets other organizations go on before each try."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.ingest.batches import Batch, Outcome
from engine.ingest.commit import Committer
from engine.ingest.commit_places import CommitPlaces
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from store.postgres.failures import LOCK_TIMEOUT

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
BATCH = Batch([UsageEvent("e", "acme", NOW, "calls", Decimal(1), None, None, None, {})])


@pytest.mark.parametrize(
    ("failures", "log"),
    [
        ([], ["commit"]),
        ([DatabaseUnavailable("locked", LOCK_TIMEOUT)], ["commit", "between", "commit"]),
        # A failure of what it writes: the same events carefully, then what is left of them.
        ([ZeroDivisionError()], ["commit", "between", "commit"]),
        (
            [ZeroDivisionError(), DatabaseUnavailable("locked", LOCK_TIMEOUT)],
            ["commit", "between", "commit", "between", "commit"],
        ),
    ],
)
async def test_each_further_try_of_a_commit_lets_others_go_on_first(
    failures: list[Exception], log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    nothing: Any = None

    async def between() -> None:
        seen.append("between")

    async def commit(*_: object, **__: object) -> list[Outcome]:
        seen.append("commit")
        if failures:
            raise failures.pop(0)
        return [Outcome(accepted=1)]

    monkeypatch.setattr(CommitPlaces, "commit", commit)
    committer = Committer(
        nothing,
        ManualClock(NOW),
        timedelta(days=34),
        RulesRegistry(),
        Organization(1, "acme"),
        between_commits=between,
        first_pause=0.0,
    )
    [outcome] = await committer.commit([BATCH])
    assert outcome.accepted == 1
    assert seen == log
