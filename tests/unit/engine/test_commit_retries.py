"""A commit that is tried again lets other organizations go on before each try."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.ingest import commit_places
from engine.ingest.batches import Batch, Outcome
from engine.ingest.commit import Committer
from engine.ingest.commit_places import CommitPlaces
from engine.ingest.monitoring import NODE_AWAY, IngestMonitoring
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from runtime.tracing.spans import NO_SPAN
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST, LOCK_TIMEOUT

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

    class Places:
        async def commit(self, *_: object, **__: object) -> list[Outcome]:
            seen.append("commit")
            if failures:
                raise failures.pop(0)
            return [Outcome(accepted=1)]

    committer = Committer(
        nothing,
        ManualClock(NOW),
        timedelta(days=34),
        RulesRegistry(),
        Organization(1, "acme"),
        between_commits=between,
        first_pause=0.0,
    )
    monkeypatch.setattr(committer, "_places", Places())
    [outcome] = await committer.commit([BATCH])
    assert outcome.accepted == 1
    assert seen == log


async def test_lost_connections_of_a_node_cost_the_coordinator_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to both may have died while nothing was sent."""
    seen: list[object] = []

    class Transactions:
        rules = SimpleNamespace(cached=None)

        async def run(self, database: object, *_: object, **__: object) -> list[Outcome]:
            seen.append(database)
            if seen.count(database) == 1:
                raise DatabaseUnavailable("lost", CONNECTION_LOST)
            return [Outcome(accepted=1)]

    async def others_go_on() -> None:
        seen.append("others")

    monkeypatch.setattr(commit_places, "knows", lambda *_: True)
    node = SimpleNamespace(worker=SimpleNamespace(database="node"), shards_of=lambda _: {})
    monitoring = IngestMonitoring()
    places = CommitPlaces(cast(Any, Transactions()), cast(Any, "coordinator"), cast(Any, node), monitoring)
    group = cast(Any, SimpleNamespace(events=BATCH.events))
    with pytest.raises(DatabaseUnavailable):
        await places.commit(group, NO_SPAN, others_go_on, careful=False)
    assert seen == ["node", "others", "coordinator"]
    [outcome] = await places.commit(group, NO_SPAN, others_go_on, careful=False)
    assert outcome.accepted == 1
    assert seen == ["node", "others", "coordinator", "coordinator"]
    assert monitoring.placed[NODE_AWAY,] == 2
