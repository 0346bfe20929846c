"""Random events and changes in random order: the service does what the reference model says."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.ingest.nodes import CommitNode, CustomerShards, Nodes, open_nodes
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.reference.alerts import Alert
from tests.reference.gauges import Event, Fields, Gauge
from tests.reference.thresholds import State
from tests.reference.usage import CONFLICT, DUPLICATE, NEW, UsageModel
from tests.support.postgres.nodes import workers
from tests.support.usage.caller import Caller
from tests.support.usage.draws import (
    CUSTOMERS,
    DAYS_AGO,
    FIELDS,
    METRICS,
    PLANS,
    START,
    SUBSCRIPTIONS,
    Again,
    New,
    again,
    events,
    new_alerts,
)
from tests.support.usage.organizations import organization
from tests.support.usage.service import Service
from tests.support.usage.words import values_of

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "25"))  # stories; hundreds take minutes

NEXT_MONTH = datetime(2026, 4, 2, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Commit:
    batches: list[list[New | Again]]


@dataclass(frozen=True)
class Archive:
    number: int


@dataclass(frozen=True)
class Put:
    customer: str
    subscription: str | None
    plan: str
    fields: Fields


class TimePasses:
    """The clock moves into the next month."""


STORY = [*["commit"] * 8, *["alert"] * 4, "archive", *["put"] * 2, "time"]


@st.composite
def stories(draw: st.DrawFn) -> tuple[str, list[object]]:
    """A metric, and the steps of a story on it."""
    metric = draw(st.sampled_from(sorted(METRICS)))

    def commit() -> Commit:
        batches: list[list[New | Again]] = []
        for size in draw(st.lists(st.integers(2, 8), min_size=1, max_size=3)):
            chosen = [draw(st.sampled_from("eeeea")) for _ in range(size)]
            batches.append([draw(events(metric) if kind == "e" else again) for kind in chosen])
        return Commit(batches)

    story: list[object] = []
    for kind in ["commit", "alert", "alert", *draw(st.lists(st.sampled_from(STORY), min_size=6, max_size=14))]:
        if kind == "commit":
            story.append(commit())
        elif kind == "alert":
            story.append(draw(new_alerts(metric)))
        elif kind == "archive":
            story.append(Archive(draw(st.integers(0, 5))))
        elif kind == "put":
            who = draw(st.sampled_from(CUSTOMERS)), draw(st.sampled_from(SUBSCRIPTIONS))
            story.append(Put(*who, draw(st.sampled_from(PLANS)), draw(st.sampled_from(FIELDS))))
        else:
            story.append(TimePasses())
    return metric, story


@pytest.fixture
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    """A pool on the module's database."""
    database = Database(shared_database_url, pool_size=4)
    yield database
    await database.close()


@pytest.fixture
async def nodes(database: Database) -> AsyncIterator[Nodes | None]:
    """The nodes of the cluster, if there is one.

    All commits run at one of them. It forwards what is about customers of others, as after their shard was moved.
    """
    found = await open_nodes(database, {}, seats=4) if workers() else None
    yield found
    if found is not None:
        await found.stop()


async def commit_node_of(nodes: Nodes | None, organization_id: int) -> CommitNode | None:
    """The first node, for commits of a new organization; None where there is no cluster."""
    if nodes is None:
        return None
    await nodes.prepare(organization_id)
    located = CustomerShards()
    await nodes.locate(located, CUSTOMERS)
    return nodes.commit_node(1, located)


async def new_service(
    caller: Caller, clock: ManualClock, database: Database, nodes: Nodes | None, metric: str
) -> Service:
    """A new organization on the caller's server, for one example."""
    name, key = await organization(caller.database_url, clock)
    own = Caller(caller.server, clock, caller.database_url, name, key)
    [[organization_id]] = await own.rows("SELECT %(organization_id)s")
    service = Service(own, database, organization_id, await commit_node_of(nodes, organization_id))
    await service.put_metric(METRICS[metric])
    return service


class Run:
    """One sequence of changes, made to the model and to the service alike."""

    def __init__(self, service: Service, clock: ManualClock) -> None:
        self.service = service
        self._clock = clock
        self.model = UsageModel(START, METRICS.values())
        self.sent: list[Event] = []

    async def change(self, change: object) -> None:
        match change:
            case Commit():
                await self._commit([[self._event(item) for item in batch] for batch in change.batches])
            case Alert():
                alert = replace(change, name=f"alert-{len(self.service.alert_ids)}")
                if await self.service.create(alert):
                    self.model.create(alert)
            case Archive() if self.model.alerts:
                name = sorted(self.model.alerts)[change.number % len(self.model.alerts)]
                self.model.archive(name)
                await self.service.archive(name)
            case Put():
                self.model.put(change.customer, change.subscription, change.plan)
                if change.subscription is not None:
                    self.model.put_fields(change.customer, change.subscription, change.fields)
                await self.service.put(change.customer, change.subscription, change.plan, change.fields)
            case TimePasses():
                self.model.now = NEXT_MONTH
                self._clock.set(NEXT_MONTH)

    def _event(self, item: New | Again) -> Event:
        if isinstance(item, Again):
            if not self.sent:
                item = New(Event("", "ann", START, "other", Fraction(1)), 0)
            else:
                event = self.sent[-min(item.back, len(self.sent))]
                return replace(event, quantity=event.quantity + 1) if item.changed else event
        number = len(self.sent)
        # No two events have the same time, so that LATEST has no ties.
        time = self.model.now - timedelta(days=DAYS_AGO[item.place], microseconds=number)
        self.sent.append(replace(item.event, event_id=f"e{number}", time=time))
        return self.sent[-1]

    async def _commit(self, batches: list[list[Event]]) -> None:
        outcomes = await self.service.commit(batches)
        verdicts, moved = self.model.commit([event for batch in batches for event in batch])
        shown: dict[Gauge, Fraction] = {}
        for batch, outcome in zip(batches, outcomes, strict=True):
            own, verdicts = verdicts[: len(batch)], verdicts[len(batch) :]
            assert outcome.accepted == own.count(NEW)
            assert sorted(outcome.duplicates) == [place for place, verdict in enumerate(own) if verdict == DUPLICATE]
            assert sorted(outcome.conflicting) == [place for place, verdict in enumerate(own) if verdict == CONFLICT]
            assert not outcome.too_old
            shown |= values_of(outcome.gauges)
        assert shown == moved

    async def compare(self) -> None:
        stored = Counter(await self.service.notifications())
        assert stored == Counter(self.model.notifications)
        nothing = State()
        expected = {key: state for key, state in self.model.states.items() if state != nothing}
        found = {key: state for key, state in (await self.service.states()).items() if state != nothing}
        assert found == expected


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories())
async def test_service_equals_the_reference_model_for_random_usage(
    caller: Caller, clock: ManualClock, database: Database, nodes: Nodes | None, story: tuple[str, list[object]]
) -> None:
    clock.set(START)
    metric, changes = story
    run = Run(await new_service(caller, clock, database, nodes, metric), clock)
    for change in changes:
        await run.change(change)
    await run.compare()
