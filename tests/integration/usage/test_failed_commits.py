"""After a failed commit a process caches nothing that the database does not have."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from engine.ingest.batches import Batch
from engine.ingest.commit import Committer
from engine.ingest.commit_transactions import CommitTransactions
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from store.identity.organizations import Organization
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST, unavailable
from store.usage import events as stored_events
from tests.support.usage.caller import Caller, ShortTransition, usage_alert
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
    """A committer with a registry of rules of its own, for the caller's organization."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    organization = Organization(organization_id, caller.organization)
    return Committer(database, clock, GRACE, RulesRegistry(), organization)


def event(clock: ManualClock, event_id: str, customer: str, quantity: str = "1") -> UsageEvent:
    amount = Decimal(quantity)
    return UsageEvent(event_id, customer, clock.now(), f"metric-{customer}", amount, "pro", None, None, {})


async def known(caller: Caller) -> set[str]:
    """The ids of the customers, subscriptions and metrics in the database."""
    rows = await caller.rows(
        "SELECT customer_id FROM customer WHERE organization_id = %(organization_id)s"
        " UNION ALL SELECT customer_id || '/' || subscription_id FROM subscription"
        " WHERE organization_id = %(organization_id)s"
        " UNION ALL SELECT metric_id FROM metric WHERE organization_id = %(organization_id)s"
    )
    assert len({name for (name,) in rows}) == len(rows)
    return {name for (name,) in rows}


def fail(monkeypatch: pytest.MonkeyPatch, errors: list[BaseException]) -> None:
    """Lets so many evaluations fail with these errors. An evaluation follows the implicit registrations."""
    evaluate: Step = CommitTransactions._count

    async def failing(self: CommitTransactions, *arguments: Any, **options: Any) -> Any:
        found = await evaluate(self, *arguments, **options)
        if errors:
            raise errors.pop(0)
        return found

    monkeypatch.setattr(CommitTransactions, "_count", failing)


def lost() -> DatabaseUnavailable:
    return unavailable(CONNECTION_LOST)


@pytest.mark.parametrize(
    "errors",
    [[lost() for _ in range(CONNECTION_LOST.tries)], [asyncio.CancelledError()]],
    ids=["outage", "cancelled"],
)
async def test_customer_of_a_failed_commit_is_registered_by_the_next_commit(
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
    # A later alert would not cover a customer that is missing in the database.
    await caller.create(usage_alert("2", metric="metric-new"))
    answer = await caller.send(caller.event("e3", customer="new", metric="metric-new"))
    assert len(answer.transitions) == 1


async def test_customer_of_a_commit_that_raised_is_registered_by_the_next_commit(
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


async def test_commit_that_succeeds_at_the_second_attempt_registers_its_customers(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = [lost()]
    fail(monkeypatch, errors)
    [outcome] = await committer.commit([Batch([event(clock, "e1", "new")])])
    assert (outcome.accepted, errors) == (1, [])
    assert await known(caller) == {"new", "new/pro", "metric-new"}
    assert await caller.event_count() == 1


async def test_customer_beside_a_duplicate_is_registered_by_the_second_pass(
    caller: Caller, clock: ManualClock, committer: Committer
) -> None:
    first = event(clock, "e0", "old")
    await committer.commit([Batch([first])])
    [outcome] = await committer.commit([Batch([first, event(clock, "e1", "new")])])
    assert (outcome.accepted, outcome.duplicates) == (1, [0])
    assert await known(caller) == {"old", "old/pro", "metric-old", "new", "new/pro", "metric-new"}


async def test_events_of_a_failed_commit_count_and_notify_once_when_repeated(
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
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "10", "7", "12", "e2")]
    ]
    [again] = await committer.commit([batch])
    assert (again.accepted, again.duplicates, again.transitions) == (0, [0, 1], [])


async def test_rules_are_read_again_after_a_failed_copy(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that a failed transaction read are not used at a later epoch."""
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
