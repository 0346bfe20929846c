"""Checks: decisions without an effect, from what is committed. No lock is taken, and no commit is waited for.

The checks of an organization that arrive during a read make up the next one. A meter that is missing, because nothing
has moved it yet, is made by the pipeline first: to count it for each check anew would cost all events of its window.
"""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from engine.balances.holding import credits_of
from engine.enforcement.credits import NoCredits
from engine.enforcement.ledger import Ledger
from engine.enforcement.metering import Metered, metered_of, want_targets
from engine.enforcement.requests import Check, Decided, EnforcementRefused, Request
from engine.enforcement.reset_times import with_reset_times
from engine.meters.cells import Cells
from engine.meters.known_targets import KnownTargets
from engine.rules.registry import RulesRegistry
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.decisions import Credit, Decision, OveragePolicy
from evaluator.enforcement.usage import Usage
from evaluator.routing import Router
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from runtime.turns import Slices
from store.balances.balances import read_one_snapshot
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres.database import Database, driver
from store.postgres.retries import repeated

USAGES_AT_ONCE = 2_000  # of one read
DECIDED_AT_ONCE = 50  # usages that are decided without a pause
IDLE_ORGANIZATIONS = 1_000  # whose targets are kept

Checked = Decision | EnforcementRefused


class Pipeline(Protocol):
    """Of `EnforcementPipeline`, what makes missing meters."""

    async def submit(self, organization: Organization, requests: Sequence[Request]) -> Sequence[Decided | Exception]:
        """Decides requests."""


@dataclass(eq=False, slots=True)
class _Waiting:
    usages: Sequence[tuple[Usage, OveragePolicy]]
    done: asyncio.Future[list[Checked]]


@dataclass(eq=False, slots=True)
class _Reader:
    """The checks of one organization that wait, and the task that reads while there are any."""

    organization: Organization
    waiting: deque[_Waiting] = field(default_factory=deque)
    targets: KnownTargets = field(default_factory=KnownTargets)
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _KnownCredits(NoCredits):
    """The credits of usages that were read; by the `id` of the usage."""

    found: dict[int, list[Credit]]

    def available(self, usage: Usage) -> Sequence[Credit]:
        """As they were read."""
        return self.found.get(id(usage), ())


class Checks:
    """Checks usage of all organizations.

    pipeline: makes meters that are missing. gate: the connections that checks may use; None: any number.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        pipeline: Pipeline,
        *,
        gate: FairSemaphore | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._grace = grace
        self._pipeline = pipeline
        self._gate = gate
        self._rules = RulesRegistry(with_alerts=False)
        self._readers: dict[int, _Reader] = {}

    async def check(
        self, organization: Organization, usages: Sequence[Usage], policy: OveragePolicy
    ) -> list[Checked]:
        """The decision about each usage by itself. Raises DatabaseUnavailable."""
        if not usages:
            return []
        reader = self._reader(organization)
        future: asyncio.Future[list[Checked]] = asyncio.get_running_loop().create_future()
        reader.waiting.append(_Waiting([(usage, policy) for usage in usages], future))
        if reader.task is None:
            # In an empty context: a read belongs to several calls, and not to the one that came first.
            reader.task = asyncio.create_task(
                self._work(reader), name="enforcement-checks", context=contextvars.Context()
            )
        return await future

    def _reader(self, organization: Organization) -> _Reader:
        reader = self._readers.get(organization.organization_id)
        if reader is None:
            if len(self._readers) >= IDLE_ORGANIZATIONS:
                self._readers = {key: one for key, one in self._readers.items() if one.task is not None}
            reader = self._readers[organization.organization_id] = _Reader(organization)
        return reader

    async def _work(self, reader: _Reader) -> None:
        """Reads until nothing waits."""
        try:
            while reader.waiting:
                group = [reader.waiting.popleft()]
                size = len(group[0].usages)
                while reader.waiting and size + len(reader.waiting[0].usages) <= USAGES_AT_ONCE:
                    size += len(reader.waiting[0].usages)
                    group.append(reader.waiting.popleft())
                await self._answer(reader, group)
        finally:
            reader.task = None

    async def _answer(self, reader: _Reader, group: Sequence[_Waiting]) -> None:
        asked = [one for waiting in group for one in waiting.usages]
        try:
            async with self._seat(reader.organization):
                found, missing = await repeated(lambda: self._read(reader, asked))
            if missing:
                requests = [Check(*asked[index]) for index in missing]
                answers = await self._pipeline.submit(reader.organization, requests)
                for index, answer in zip(missing, answers, strict=True):
                    found[index] = _checked(answer)
        except BaseException as error:
            for waiting in group:
                if isinstance(error, Exception) and not waiting.done.done():
                    waiting.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.usages)
            if not waiting.done.done():  # its caller may have cancelled the call
                waiting.done.set_result([found[index] for index in range(start, end)])
            start = end

    def _seat(self, organization: Organization) -> AbstractAsyncContextManager[object]:
        """A connection in the organization's turn: the reads of many organizations leave some for other calls."""
        if self._gate is None:
            return contextlib.nullcontext()
        return self._gate.seat(organization.organization_id)

    async def _read(
        self, reader: _Reader, asked: Sequence[tuple[Usage, OveragePolicy]]
    ) -> tuple[dict[int, Checked], list[int]]:
        """Decides by one snapshot. Returns the decisions by index, and the indexes of usages that lack a meter."""
        organization_id, now = reader.organization.organization_id, self._clock.now()
        rules = self._rules.of(organization_id)
        found: dict[int, Checked] = {}
        slices = Slices(organization_id)
        async with self._database.transaction() as connection:
            await read_one_snapshot(connection)
            raw = await driver(connection)
            router = await rules.router(connection, await organizations.current_epoch(connection, organization_id))
            unregistered = await rules.read_facts(connection, router, [usage for usage, _ in asked], now)
            reader.targets.use(router)
            cells = Cells(organization_id, router, now, unregistered.customers)
            metered: dict[int, Metered] = {}
            await slices.begin()
            with exact_arithmetic():
                for index, (usage, _) in enumerate(asked):
                    if not index % DECIDED_AT_ONCE:
                        await slices.pause()
                    try:
                        one = self._metered(reader, router, usage)
                    except EnforcementRefused as error:
                        found[index] = error
                        continue
                    metered[index] = one
                    want_targets(cells, one)
            await cells.send_read(raw)
            unknown = await cells.load_known(raw)
            usages = [one.usage for one in metered.values()]
            credits = await credits_of(raw, organization_id, usages)
            by_usage = {id(usage): of_usage for usage, of_usage in zip(usages, credits, strict=True)}
            ledger = Ledger(now, cells.by_key, {}, _KnownCredits(by_usage))
            missing = []
            with exact_arithmetic():
                for index, one in metered.items():
                    if not index % DECIDED_AT_ONCE:
                        await slices.pause()
                    if unknown and not unknown.isdisjoint(one.meter_keys()):
                        missing.append(index)
                    else:
                        found[index] = ledger.check(one, asked[index][1])
            if ledger.decider.rolling:
                replaced = await with_reset_times(raw, organization_id, now, ledger.decider.rolling)
                for index, answer in found.items():
                    if isinstance(answer, Decision):
                        found[index] = replaced.get(id(answer), answer)
            unregistered.forget_in(router)
        return found, missing

    def _metered(self, reader: _Reader, router: Router, usage: Usage) -> Metered:
        """Usage with its targets. A subscription that does not exist has no limits of its own."""
        subscriptions = router.known[usage.customer_id].subscriptions
        if usage.subscription_id is not None and usage.subscription_id not in subscriptions:
            usage = Usage(
                usage.customer_id,
                usage.metric_id,
                usage.quantity,
                usage.cost,
                usage.currency,
                None,
                usage.properties,
                usage.event_time,
            )
        return metered_of(router, reader.targets, usage, self._clock.now(), self._grace)


def _checked(answer: Decided | Exception) -> Checked:
    if isinstance(answer, EnforcementRefused):
        return answer
    if isinstance(answer, Exception):
        raise answer
    assert answer.decision is not None, "a check has a decision"
    return answer.decision
