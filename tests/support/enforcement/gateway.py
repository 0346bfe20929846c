"""A gateway: what a caller of enforcement does, through a pipeline of its own on the database of a server."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from engine.enforcement.checks import Checks
from engine.enforcement.pipeline import EnforcementPipeline
from engine.enforcement.requests import Decided, Extend, Release, Request, Reserve, Settle
from engine.ingest.batches import Batch, Outcome
from engine.ingest.commit import Committer
from engine.ingest.pending import PendingEvents
from engine.limits import DEFAULT_LIMITS, EnforcementLimits
from evaluator.enforcement.decisions import Decision, OveragePolicy
from evaluator.enforcement.decisions import Outcome as DecisionOutcome
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from generated.tidemark.v1 import account_service_pb2, limit_pb2
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.usage.service import GRACE

PROBE = "probe-"  # begins the ids of reservations of `Gateway.store_meters`
_PROBES = itertools.count(1)
HARD, SOFT = limit_pb2.LIMIT_ENFORCEMENT_HARD, limit_pb2.LIMIT_ENFORCEMENT_SOFT


class Gateway:
    """Requests of one organization to one pipeline, as one of several servers has it."""

    def __init__(self, pipeline: EnforcementPipeline, checks: Checks, organization: Organization) -> None:
        self.pipeline = pipeline
        self.checks = checks
        self.organization = organization

    async def ask(self, *requests: Request) -> list[Decided]:
        """Sends requests together; raises the first that is refused."""
        answers = await self.pipeline.submit(self.organization, requests)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if isinstance(answer, Decided)]

    async def reserve(self, reservation_id: str, quantity: str = "1", **fields: Any) -> Decided:
        """Reserves usage; see `reserve`."""
        [answer] = await self.ask(reserve(reservation_id, quantity, **fields))
        return answer

    async def check(self, quantity: str = "1", **fields: Any) -> Decision:
        """Checks usage; see `usage`."""
        policy = fields.pop("policy", OveragePolicy.DEFAULT)
        wanted = usage(quantity, **fields)
        [found] = await self.checks.check(self.organization, [wanted], policy)
        assert isinstance(found, Decision)
        return found

    async def store_meters(self, customer: str = "acme", **fields: Any) -> None:
        """Lets a commit count and store the meters of usage: it reserves nothing of them, and gives that back."""
        name = f"{PROBE}{next(_PROBES)}"
        await self.ask(
            reserve(name, "0", customer=customer, policy=OveragePolicy.OVERFLOW, **fields), Release(customer, name)
        )

    async def settle(
        self, reservation_id: str, quantity: str | None = None, cost: str | None = None, customer: str = "acme"
    ) -> Decided:
        """Settles a reservation."""
        [answer] = await self.ask(settle(reservation_id, quantity, cost, customer))
        return answer

    async def release(self, reservation_id: str, customer: str = "acme") -> Decided:
        """Releases a reservation."""
        [answer] = await self.ask(Release(customer, reservation_id))
        return answer

    async def extend(self, reservation_id: str, seconds: float, customer: str = "acme") -> Decided:
        """Extends a reservation from now on."""
        [answer] = await self.ask(Extend(customer, reservation_id, ttl=timedelta(seconds=seconds)))
        return answer


class Sender:
    """Usage of one organization that goes to a committer of its own: its outcomes are those of the engine."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def send(self, *events: UsageEvent) -> Outcome:
        """Commits one batch."""
        [outcome] = await self.together(events)
        return outcome

    async def together(self, *batches: Sequence[UsageEvent]) -> list[Outcome]:
        """Commits several batches together."""
        return await self._committer.commit([Batch(batch) for batch in batches])


def usage_event(
    event_id: str,
    quantity: str = "1",
    *,
    customer: str = "acme",
    metric: str = "calls",
    cost: str | None = None,
    at: datetime = NOON,
    **properties: str,
) -> UsageEvent:
    """An event; its cost is in dollars."""
    amount = None if cost is None else Decimal(cost)
    currency = None if cost is None else "USD"
    return UsageEvent(event_id, customer, at, metric, Decimal(quantity), None, amount, currency, properties)


def usage(
    quantity: str = "1",
    *,
    customer: str = "acme",
    metric: str = "calls",
    cost: str | None = None,
    currency: str | None = None,
    subscription: str | None = None,
    at: datetime | None = None,
    **properties: str,
) -> Usage:
    """Usage; at: its time, by default that of the decision."""
    amount = None if cost is None else Decimal(cost)
    return Usage(customer, metric, Decimal(quantity), amount, currency, subscription, properties, at)


def reserve(
    reservation_id: str,
    quantity: str = "1",
    *,
    policy: OveragePolicy = OveragePolicy.DEFAULT,
    seconds: float | None = None,
    **fields: Any,
) -> Reserve:
    """A request to reserve; seconds: its ttl. The others: as of `usage`."""
    ttl = None if seconds is None else timedelta(seconds=seconds)
    return Reserve(reservation_id, usage(quantity, **fields), policy, ttl=ttl)


def settle(
    reservation_id: str, quantity: str | None = None, cost: str | None = None, customer: str = "acme"
) -> Settle:
    """A request to settle."""
    return Settle(
        customer,
        reservation_id,
        None if quantity is None else Decimal(quantity),
        None if cost is None else Decimal(cost),
    )


def pipeline_on(
    database: Database, clock: Clock, *, writers: int = 2, limits: EnforcementLimits = DEFAULT_LIMITS.enforcement
) -> EnforcementPipeline:
    """A pipeline as a server has it."""
    return EnforcementPipeline(
        database,
        clock,
        GRACE,
        writers=writers,
        pending=PendingEvents(100_000, 100_000),
        gate=FairSemaphore(8),
        limits=limits,
    )


@asynccontextmanager
async def gateway_of(caller: Caller, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway of the caller's organization, with connections of its own. options: as of `pipeline_on`."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url)
    pipeline = pipeline_on(database, caller.clock, **options)
    try:
        checks = Checks(database, caller.clock, GRACE)
        yield Gateway(pipeline, checks, Organization(organization_id, caller.organization))
    finally:
        await pipeline.drain()
        await database.close()


async def put_limit(
    caller: Caller,
    amount: str,
    limit_id: str = "limit",
    *,
    customer: str = "",
    plan: str = "",
    metric: str = "calls",
    currency: str = "",
    enforcement: limit_pb2.LimitEnforcement.ValueType = HARD,
    **fields: Any,
) -> None:
    """Puts a limit: of acme in calls, unless other values are given."""
    fields |= {"plan": {"plan_id": plan}} if plan else {"customer": {"customer_id": customer or "acme"}}
    fields |= {"spend": {"currency": currency}} if currency else {"quantity": {"metric_id": metric}}
    limit = limit_pb2.Limit(limit_id=limit_id, amount=amount, enforcement=enforcement, **fields)
    request = account_service_pb2.PutLimitRequest(limit=limit)
    await caller.accounts.PutLimit(request, metadata=caller.metadata, timeout=DEADLINE)


async def meters(caller: Caller) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Counted and held of each meter, by customer, unit and kind of window."""
    rows = await caller.rows(
        "SELECT customer_id, unit, window_kind, trim_scale(counted)::text, trim_scale(held)::text FROM meter"
        " WHERE organization_id = %(organization_id)s"
    )
    return {(customer, unit, kind): (counted, held) for customer, unit, kind, counted, held in rows}


def outcomes(answers: Sequence[Decided]) -> list[DecisionOutcome]:
    """The outcomes of answers, in their order."""
    return [answer.decision.outcome for answer in answers if answer.decision is not None]


async def shown(caller: Caller) -> tuple[str, str]:
    """Counted and held of acme's calls."""
    return (await meters(caller))["acme", "usage/calls", "BILLING_PERIOD"]
