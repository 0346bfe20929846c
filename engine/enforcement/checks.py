"""Checks: decisions without an effect, from what is committed. No lock is taken, and no commit is waited for.

The checks of an organization that arrive during a read make up the next one. Where the router knows all that they
name, what they need is planned with the cached rules and read in one round trip; the epoch that is read with it shows
whether these rules stand. A meter that is missing, because nothing has moved it yet, is made by the pipeline first:
to count it for each check anew would cost all events of its window.
"""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Collection, Container, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from engine.balances.holding import credits_of
from engine.enforcement.credits import NoCredits
from engine.enforcement.ledger import Ledger
from engine.enforcement.metering import Metered, metered_of, want_targets
from engine.enforcement.requests import Check, Decided, EnforcementRefused, Request
from engine.enforcement.reset_times import with_reset_times
from engine.meters.cells import Cells
from engine.meters.known_targets import KnownTargets
from engine.rules.loading import knows
from engine.rules.registry import RulesRegistry
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.decisions import Credit, Decision, OveragePolicy
from evaluator.enforcement.usage import Usage
from evaluator.routing import Router
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from runtime.turns import Slices
from store.balances import wallets
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres import pipelines
from store.postgres.database import Database, driver
from store.postgres.retries import repeated

USAGES_AT_ONCE = 2_000  # of one read
DECIDED_AT_ONCE = 50  # usages that are decided without a pause
IDLE_ORGANIZATIONS = 1_000  # whose targets are kept
MOST_DRAWING = 10_000  # customers of one organization

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
    """The checks of one organization that wait, and the task that reads while there are any.

    drawing: customers on whose balances usage draws, as far as is known: their balances have to be read, too.
    """

    organization: Organization
    waiting: deque[_Waiting] = field(default_factory=deque)
    targets: KnownTargets = field(default_factory=KnownTargets)
    drawing: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    def note_drawing(self, customer_ids: Collection[str]) -> None:
        """Notes customers on whose balances usage draws."""
        if len(self.drawing) > MOST_DRAWING:
            self.drawing.clear()
        self.drawing.update(customer_ids)


@dataclass(frozen=True, slots=True)
class _KnownCredits(NoCredits):
    """The credits of usages that were read; by the `id` of the usage."""

    found: dict[int, list[Credit]]

    def available(self, usage: Usage) -> Sequence[Credit]:
        """As they were read."""
        return self.found.get(id(usage), ())


@dataclass(eq=False, slots=True)
class _Wanted:
    """What the decisions of one read need, by the rules of an epoch.

    metered, refused: by index of the usage. rolls: whether a window is rolling, whose minutes may have to be read.
    """

    epoch: int
    cells: Cells
    metered: dict[int, Metered] = field(default_factory=dict)
    refused: dict[int, EnforcementRefused] = field(default_factory=dict)
    rolls: bool = False


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
        found = await self._try_read(reader, asked, at_once=True)
        if found is None:
            found = await self._try_read(reader, asked, at_once=False)
            assert found is not None, "all that is needed can be read in an open transaction"
        return found

    async def _try_read(
        self, reader: _Reader, asked: Sequence[tuple[Usage, OveragePolicy]], *, at_once: bool
    ) -> tuple[dict[int, Checked], list[int]] | None:
        """Reads and decides as `_read`. at_once: the transaction ends with its first statements, where these may be
        enough; None if they were not."""
        organization_id, now = reader.organization.organization_id, self._clock.now()
        rules = self._rules.of(organization_id)
        slices = Slices(organization_id)
        usages = [usage for usage, _ in asked]
        customer_ids = {usage.customer_id for usage in usages}
        wanted: _Wanted | None = None
        if knows(rules.cached, usages):
            wanted = await self._wanted(reader, rules.cached, usages, now, slices)
        ends = at_once and wanted is not None and not wanted.rolls and reader.drawing.isdisjoint(customer_ids)
        async with self._database.unbegun_transaction() as connection:
            raw = await driver(connection)
            async with pipelines.pipeline(raw):
                await pipelines.begin_snapshot(raw)
                current = await organizations.send_current_epoch(raw, organization_id)
                drawing = await wallets.send_read_with_drawdown(raw, organization_id, customer_ids)
                if wanted is not None:
                    await wanted.cells.send_read(raw)
                if ends:
                    await pipelines.commit(raw)
            epoch, drawn = await organizations.epoch_of(current), await wallets.held(drawing)
            reader.note_drawing(drawn)
            if ends and wanted is not None and (drawn or wanted.epoch != epoch):
                return None
            router = await rules.router(connection, epoch)
            unregistered = await rules.read_facts(connection, router, usages, now)
            if wanted is None or wanted.epoch != router.epoch:
                wanted = await self._wanted(reader, router, usages, now, slices, unregistered.customers)
                await wanted.cells.send_read(raw)
            unknown = await wanted.cells.load_known(raw)
            metered = [one.usage for one in wanted.metered.values()]
            credits = await credits_of(raw, organization_id, drawn, metered)
            by_usage = {id(usage): of_usage for usage, of_usage in zip(metered, credits, strict=True) if of_usage}
            ledger = Ledger(now, wanted.cells.by_key, {}, _KnownCredits(by_usage))
            found: dict[int, Checked] = dict(wanted.refused)
            missing = []
            await slices.begin()
            with exact_arithmetic():
                for index, one in wanted.metered.items():
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

    async def _wanted(
        self,
        reader: _Reader,
        router: Router,
        usages: Sequence[Usage],
        now: datetime,
        slices: Slices,
        new_customers: Container[str] = (),
    ) -> "_Wanted":
        """What the decisions about usage need. The router knows what it names."""
        reader.targets.use(router)
        wanted = _Wanted(router.epoch, Cells(reader.organization.organization_id, router, now, new_customers))
        await slices.begin()
        with exact_arithmetic():
            for index, usage in enumerate(usages):
                if not index % DECIDED_AT_ONCE:
                    await slices.pause()
                try:
                    one = self._metered(reader, router, usage)
                except EnforcementRefused as error:
                    wanted.refused[index] = error
                    continue
                wanted.metered[index] = one
                want_targets(wanted.cells, one)
                for target in one.targets:
                    wanted.rolls = wanted.rolls or target.limit.window.is_rolling
        return wanted

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
