"""Pipelines whose commits do not reach a database: they end as a test says."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.ingest import pipeline as pipelines
from engine.ingest.batches import Batch, Outcome
from engine.ingest.pending import PendingEvents
from engine.ingest.pipeline import Pipeline
from engine.limits import DEFAULT_LIMITS, IngestLimits
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
LIMIT = 10  # seconds for each step of a test
ACME = Organization(1, "acme")


@dataclass
class Commits:
    """Replaces the database: commits end as the test says.

    failures: the exceptions of the next commits. held: commits wait for it. log: customers whose events began, or
    ended, to be committed. refused: customers whose events a commit cannot record; divided: commits that are
    divided for that wait for it.
    """

    failures: list[BaseException] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[tuple[str, str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    gauges_moved: int = 0
    divided: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.held.set()
        self.divided.set()

    async def together(self, batches: Sequence[Batch]) -> list[Outcome] | None:
        names = [batch.events[0].customer_id for batch in batches]
        self.log += [("began", name) for name in names]
        await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.refused.intersection(event.customer_id for batch in batches for event in batch.events):
            return None
        self.log += [("ended", name) for name in names]
        return [Outcome(accepted=len(batch.events)) for batch in batches]

    async def contain(self, batches: Sequence[Batch], between: Callable[[], Awaitable[None]]) -> list[Outcome]:
        names = [batch.events[0].customer_id for batch in batches]
        await self.divided.wait()
        await between()
        self.log += [("divided", name) for name in names]
        return [Outcome(unrecorded=list(range(len(batch.events)))) for batch in batches]


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    """The committer of all pipelines of a test."""
    made = Commits()
    monkeypatch.setattr(pipelines, "Committer", lambda *_, **__: made)
    return made


def pipeline(
    writers: int = 1,
    pending: int = 10,
    limits: IngestLimits = DEFAULT_LIMITS.ingest,
    waiting: PendingEvents | None = None,
    gate: FairSemaphore | None = None,
    is_changing: Callable[[int], bool] = lambda _: False,
) -> Pipeline:
    """A pipeline of its own. pending: the events of one organization that may wait, unless `waiting` counts them."""
    nothing: Any = None
    # Twice as many as one organization may have: only the organization's limit is reached in these tests.
    waiting = waiting or PendingEvents(2 * pending, pending)
    return Pipeline(
        nothing,
        ManualClock(NOW),
        timedelta(days=34),
        RulesRegistry(),
        writers=writers,
        pending=waiting,
        gate=gate or FairSemaphore(2 * writers),
        is_changing=is_changing,
        limits=limits,
    )


async def submit(lanes: Pipeline, organization: Organization, batch: Batch, *, waits: bool = False) -> Outcome:
    """Commits a batch as a unary call does, or, if it `waits` for room, as a stream does."""
    room = await lanes.admit(organization, len(batch.events), waits=waits)
    try:
        return await lanes.submit(organization, batch, room)
    finally:
        room.give_up()


def batch(customer: str = "acme", size: int = 1) -> Batch:
    """Events of one customer."""
    return Batch([UsageEvent(f"e{n}", customer, NOW, "calls", Decimal(1), None, None, None, {}) for n in range(size)])
