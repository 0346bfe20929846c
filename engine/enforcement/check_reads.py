"""Reads of checks: usage is decided by what one snapshot shows, without a lock.

Where the router knows all that the usage names, what it needs is planned with the cached rules, and one round trip
reads it and ends the transaction. The epoch that is read with it shows whether these rules stand.
"""

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from engine.balances.holding import credits_of
from engine.enforcement.credits import NoCredits
from engine.enforcement.ledger import Ledger
from engine.enforcement.metering import Metered, metered_of, want_targets
from engine.enforcement.requests import EnforcementRefused
from engine.enforcement.reset_times import with_reset_times
from engine.meters.cells import Cells
from engine.meters.counted_meters import CountedMeters
from engine.meters.known_targets import KnownTargets
from engine.rules.loading import Registered, knows
from engine.rules.registry import RulesRegistry
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.decisions import Credit, Decision, OveragePolicy
from evaluator.enforcement.usage import Usage
from evaluator.routing import Router
from runtime.clock import Clock
from runtime.turns import Slices
from store.balances import wallets
from store.identity import organizations
from store.postgres import pipelines
from store.postgres.database import Database, driver
from store.postgres.distributed import on_cluster

DECIDED_AT_ONCE = 50  # usages that are decided without a pause
MOST_DRAWING = 10_000  # customers of one organization

Checked = Decision | EnforcementRefused


@dataclass(eq=False, slots=True)
class KnownOfChecks:
    """What is known of one organization from one read to the next.

    drawing: customers of which more has to be read, as far as is known: on whose balances usage draws, or whose usage
    moves meters that are not stored. counted: what these count.
    """

    organization_id: int
    targets: KnownTargets = field(default_factory=KnownTargets)
    drawing: set[str] = field(default_factory=set)
    counted: CountedMeters = field(default_factory=CountedMeters)

    def note_drawing(self, customer_ids: Collection[str]) -> None:
        """Notes customers of which more has to be read."""
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


class CheckReads:
    """Decides usage of all organizations; of one organization, one read at a time."""

    def __init__(self, database: Database, clock: Clock, grace: timedelta) -> None:
        """`grace`: how long after its end a period still counts late events."""
        self._database = database
        self._clock = clock
        self._grace = grace
        self._rules = RulesRegistry(with_alerts=False)

    async def read(self, known: KnownOfChecks, asked: Sequence[tuple[Usage, OveragePolicy]]) -> dict[int, Checked]:
        """Decides by one snapshot. Returns the decisions by index."""
        found = await self._try_read(known, asked, at_once=True)
        if found is None:
            found = await self._try_read(known, asked, at_once=False)
        if found is None:  # on a cluster, by rules of another epoch
            await self._catch_up(known.organization_id)
            found = await self._try_read(known, asked, at_once=False, caught_up=True)
        assert found is not None, "all that is needed can be read in an open transaction"
        return found

    async def _catch_up(self, organization_id: int) -> None:
        """Reads the rules as they stand under the lock: without it, a cluster may not show all of them yet."""
        async with self._database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
            await self._rules.of(organization_id).router(connection, epoch, in_parts=True)

    async def _try_read(
        self,
        known: KnownOfChecks,
        asked: Sequence[tuple[Usage, OveragePolicy]],
        *,
        at_once: bool,
        caught_up: bool = False,
    ) -> dict[int, Checked] | None:
        """Reads and decides as `read`.

        at_once: the transaction ends with its first statements, where these may be enough; None if they were not.
        caught_up: the cached rules have just been read; None without it, if a cluster has others.
        """
        organization_id, now = known.organization_id, self._clock.now()
        rules = self._rules.of(organization_id)
        slices = Slices(organization_id)
        usages = [usage for usage, _ in asked]
        customer_ids = {usage.customer_id for usage in usages}
        wanted: _Wanted | None = None
        if knows(rules.cached, usages):
            wanted = await self._wanted(known, rules.cached, usages, now, slices)
        ends = at_once and wanted is not None and not wanted.rolls and known.drawing.isdisjoint(customer_ids)
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
            if on_cluster(raw) and epoch != rules.cached.epoch:
                if not caught_up:
                    return None
                epoch = rules.cached.epoch
            known.note_drawing(drawn)
            if ends and wanted is not None and (drawn or wanted.epoch != epoch):
                return None
            if wanted is not None and wanted.epoch == epoch:
                router, unregistered = rules.cached, Registered()
                rules.named(router, customer_ids)
            else:
                router = await rules.router(connection, epoch, in_parts=True)
                unregistered = await rules.read_facts(connection, router, usages, now)
                wanted = await self._wanted(known, router, usages, now, slices, unregistered.customers)
                await wanted.cells.send_read(raw)
            if not await wanted.cells.load_reading(raw, known.counted, ended=ends):
                known.note_drawing(
                    [one.usage.customer_id for one in wanted.metered.values() if _lacks(one, wanted.cells.lacking)]
                )
                return None
            by_usage: dict[int, list[Credit]] = {}
            if drawn:
                metered = [one.usage for one in wanted.metered.values()]
                credits = await credits_of(raw, organization_id, drawn, metered)
                by_usage = {id(usage): of_usage for usage, of_usage in zip(metered, credits, strict=True) if of_usage}
            ledger = Ledger(now, wanted.cells.by_key, {}, _KnownCredits(by_usage))
            found: dict[int, Checked] = dict(wanted.refused)
            await slices.begin()
            with exact_arithmetic():
                for index, one in wanted.metered.items():
                    if not index % DECIDED_AT_ONCE:
                        await slices.pause()
                    found[index] = ledger.check(one, asked[index][1])
            if ledger.decider.rolling:
                rolling, cells = ledger.decider.rolling, wanted.cells.by_key
                replaced = await with_reset_times(raw, organization_id, now, rolling, cells)
                for index, answer in found.items():
                    if isinstance(answer, Decision):
                        found[index] = replaced.get(id(answer), answer)
            unregistered.forget_in(router)
        return found

    async def _wanted(
        self,
        known: KnownOfChecks,
        router: Router,
        usages: Sequence[Usage],
        now: datetime,
        slices: Slices,
        new_customers: Container[str] = (),
    ) -> "_Wanted":
        """What the decisions about usage need. The router knows what it names."""
        known.targets.use(router)
        wanted = _Wanted(router.epoch, Cells(known.organization_id, router, now, new_customers))
        await slices.begin()
        with exact_arithmetic():
            for index, usage in enumerate(usages):
                if not index % DECIDED_AT_ONCE:
                    await slices.pause()
                try:
                    one = self._metered(known, router, usage, now)
                except EnforcementRefused as error:
                    wanted.refused[index] = error
                    continue
                wanted.metered[index] = one
                want_targets(wanted.cells, one)
                for target in one.targets:
                    wanted.rolls = wanted.rolls or target.limit.window.is_rolling
        return wanted

    def _metered(self, known: KnownOfChecks, router: Router, usage: Usage, now: datetime) -> Metered:
        """Usage with its targets. A subscription that does not exist has no limits of its own."""
        if (
            usage.subscription_id is not None
            and usage.subscription_id not in router.known[usage.customer_id].subscriptions
        ):
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
        return metered_of(router, known.targets, usage, now, self._grace)


def _lacks(metered: Metered, lacking: Container[str]) -> bool:
    """Whether usage moves one of these meters."""
    time = metered.usage.event_time
    assert time is not None, "metered usage has a time"
    return any(target.meter_at(time).key in lacking for target in metered.targets)
