"""What a process remembers after a transaction that failed: nothing that the database does not know."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from engine.ingest.batches import Batch
from engine.ingest.commit import Committer
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from store.identity.organizations import Organization
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST, unavailable
from store.usage import events as stored_events
from tests.support.usage.caller import Caller, Crossing, usage_alert
from tests.support.usage.service import GRACE

Step = Callable[..., Awaitable[Any]]


@pytest.fixture
async def database(caller: Caller) -> AsyncIterator[Database]:
    """The database of the caller's server."""
    made = Database(caller.database_url, pool_size=2)
    yield made
    await made.close()


@pytest.fixture
async def committer(caller: Caller, database: Database, clock: ManualClock) -> Committer:
    """A committer that remembers the rules of the caller's organization."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    organization = Organization(organization_id, caller.organization)
    return Committer(database, clock, GRACE, RulesRegistry(), organization)


def event(clock: ManualClock, event_id: str, customer: str, quantity: str = "1") -> UsageEvent:
    amount = Decimal(quantity)
    return UsageEvent(event_id, customer, clock.now(), f"metric-{customer}", amount, "pro", None, None, {})


async def known(caller: Caller) -> set[str]:
    """Whom, and what, the database knows."""
    rows = await caller.rows(
        "SELECT customer_id FROM customer WHERE organization_id = %(organization_id)s"
        " UNION ALL SELECT customer_id || '/' || subscription_id FROM subscription"
        " WHERE organization_id = %(organization_id)s"
        " UNION ALL SELECT metric_id FROM metric WHERE organization_id = %(organization_id)s"
    )
    assert len({name for (name,) in rows}) == len(rows)
    return {name for (name,) in rows}


def fail(monkeypatch: pytest.MonkeyPatch, errors: list[BaseException]) -> None:
    """Lets so many evaluations, which come after all that is made on first sight, end with those errors."""
    evaluate: Step = Committer._count

    async def failing(self: Committer, *arguments: Any) -> Any:
        found = await evaluate(self, *arguments)
        if errors:
            raise errors.pop(0)
        return found

    monkeypatch.setattr(Committer, "_count", failing)


def lost() -> DatabaseUnavailable:
    return unavailable(CONNECTION_LOST)


@pytest.mark.parametrize(
    "errors",
    [[lost() for _ in range(CONNECTION_LOST.tries)], [asyncio.CancelledError()]],
    ids=["outage", "cancelled"],
)
async def test_whoever_a_failed_commit_made_is_made_again_by_the_next(
    caller: Caller,
    clock: ManualClock,
    committer: Committer,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[BaseException],
) -> None:
    await committer.commit([Batch([event(clock, "e0", "old")])])
    there = {"old", "old/pro", "metric-old"}
    fail(monkeypatch, errors)
    expected = type(errors[0])
    with pytest.raises(expected):
        await committer.commit([Batch([event(clock, "e1", "new")])])
    assert not errors
    assert await known(caller) == there
    assert await caller.event_count() == 1
    [outcome] = await committer.commit([Batch([event(clock, "e2", "new")])])
    assert outcome.accepted == 1
    assert await known(caller) == there | {"new", "new/pro", "metric-new"}
    # Whoever the database does not know is covered by no alert that comes later.
    await caller.create(usage_alert("2", metric="metric-new"))
    answer = await caller.send(caller.event("e3", customer="new", metric="metric-new"))
    assert len(answer.transitions) == 1


async def test_whoever_a_commit_made_that_a_bug_ended_is_made_again_by_the_next(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = [ValueError("a bug") for _ in range(100)]
    fail(monkeypatch, errors)
    [outcome] = await committer.commit([Batch([event(clock, "e1", "new")])])
    assert outcome.unrecorded == [0]
    assert await known(caller) == set()
    errors.clear()
    [outcome] = await committer.commit([Batch([event(clock, "e1", "new")])])
    assert outcome.accepted == 1
    assert await known(caller) == {"new", "new/pro", "metric-new"}


async def test_a_commit_that_succeeds_at_the_second_attempt_made_everyone(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = [lost()]
    fail(monkeypatch, errors)
    [outcome] = await committer.commit([Batch([event(clock, "e1", "new")])])
    assert (outcome.accepted, errors) == (1, [])
    assert await known(caller) == {"new", "new/pro", "metric-new"}
    assert await caller.event_count() == 1


async def test_whoever_was_made_beside_a_duplicate_is_made_by_the_second_pass(
    caller: Caller, clock: ManualClock, committer: Committer
) -> None:
    first = event(clock, "e0", "old")
    await committer.commit([Batch([first])])
    [outcome] = await committer.commit([Batch([first, event(clock, "e1", "new")])])
    assert (outcome.accepted, outcome.duplicates) == (1, [0])
    assert await known(caller) == {"old", "old/pro", "metric-old", "new", "new/pro", "metric-new"}


async def test_what_a_failed_commit_counted_and_found_is_counted_and_told_once(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("10", metric="metric-acme"))
    errors: list[BaseException] = [lost() for _ in range(CONNECTION_LOST.tries)]
    fail(monkeypatch, errors)
    batch = Batch([event(clock, "e1", "acme", "7"), event(clock, "e2", "acme", "5")], include_gauges=True)
    with pytest.raises(DatabaseUnavailable):
        await committer.commit([batch])
    assert await caller.notifications() == []
    [outcome] = await committer.commit([batch])
    assert [value for _, value in outcome.gauges] == [12]
    assert [one.crossings for one in await caller.notifications()] == [[Crossing("REACHED", "10", "7", "12", "e2")]]
    [again] = await committer.commit([batch])
    assert (again.accepted, again.duplicates, again.transitions) == (0, [0, 1], [])


async def test_copying_that_fails_leaves_rules_that_are_read_again(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules of an epoch that a failed transaction saw are not taken for those of the next."""
    copy: Step = stored_events.copy

    async def failing(*_: Any) -> None:
        raise ValueError("a bug")

    await committer.commit([Batch([event(clock, "e0", "acme")])])
    monkeypatch.setattr(stored_events, "copy", failing)
    [outcome] = await committer.commit([Batch([event(clock, "e1", "acme")])])
    assert outcome.unrecorded == [0]
    await caller.create(usage_alert("2", metric="metric-acme"))
    monkeypatch.setattr(stored_events, "copy", copy)
    [outcome] = await committer.commit([Batch([event(clock, "e2", "acme")])])
    assert [one.transition.level for one in outcome.transitions] == [2]
