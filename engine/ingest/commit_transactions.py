"""The transaction of a commit: events are stored, counted and evaluated, at the database that is given.

Its steps, in order: facts of the events (`engine.rules`), `storing`, `counting` (drawdown, `routing`, gauges,
evaluation), and after the commit `outcomes`. A few events of known customers take a shorter way (`small_commit`). At
a node of a cluster, statements about events and gauges name the tables of shards (`store.citus.shard_tables`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from engine.ingest import new_names
from engine.ingest.batches import Outcome
from engine.ingest.counting import Counted, count, count_moved
from engine.ingest.group import CommitGroup
from engine.ingest.late_events import without_erased, without_too_late
from engine.ingest.monitoring import (
    COMMIT,
    CONNECTION,
    COUNT,
    FACTS,
    OUTCOMES,
    RULES,
    STORE,
    TOGETHER,
    CommitPhases,
    IngestMonitoring,
)
from engine.ingest.outcomes import outcomes_of
from engine.ingest.small_commit import CommitPlan, NotAsPlanned, plan_of
from engine.ingest.storing import Stored, store
from engine.meters.known_targets import KnownTargets
from engine.meters.usage_meters import UsageMeters, open_usage_meters
from engine.rules.loading import Registered, knows
from engine.rules.organization_rules import OrganizationRules
from engine.rules.preparing import Prepared
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from evaluator.routing import Router
from runtime.clock import Clock
from runtime.tracing.spans import Span
from store.balances.wallets import Wallet
from store.citus import shard_tables
from store.citus.shard_tables import ShardsOf
from store.identity import organizations
from store.identity.organizations import LockedOrganization, Organization
from store.postgres.database import Connection, Database, DriverConnection, driver
from store.postgres.distributed import NeedsCoordinator, marker_of
from store.usage.events import DuplicateEvents


class CommitTransactions:
    """Runs the transactions of the commits of one organization.

    gauges_moved: by the last one. organization_id: whose they are.
    """

    def __init__(
        self,
        clock: Clock,
        grace: timedelta,
        rules: RulesRegistry,
        organization: Organization,
        *,
        native: bool,
        monitoring: IngestMonitoring,
    ) -> None:
        """Its parameters are those of `Committer`."""
        self._clock = clock
        self._grace = grace
        self._rules = rules
        self.organization_id = organization.organization_id
        self._organization = organization
        self._native = native
        self._monitoring = monitoring
        self._targets = KnownTargets()
        self.gauges_moved = 0

    @property
    def rules(self) -> OrganizationRules:
        """The cached rules of the organization."""
        return self._rules.of(self.organization_id)

    async def run(
        self,
        database: Database,
        group: CommitGroup,
        span: Span,
        duplicates: DuplicateEvents | None = None,
        *,
        careful: bool = False,
        shards: ShardsOf | None = None,
        prepared: Prepared | None = None,
    ) -> list[Outcome]:
        """Commits in one transaction.

        duplicates: what a transaction before it has found. careful: see `Transaction`. shards: of all customers, if
        it is known that they lie at the node of this database. prepared: see `prepare`. Raises DuplicateEvents,
        EventsVoided, NeedsCoordinator at a node, and what the statements raise; then nothing is stored.
        """
        rules = self.rules
        is_first = duplicates is None and not careful and prepared is None
        if is_first and (plan := plan_of(rules.cached, group, self._clock.now() - self._grace)):
            try:
                return await self._run_small(database, rules, group, span, plan, shards)
            except NotAsPlanned as error:
                duplicates = DuplicateEvents() if error.duplicates else None
        if duplicates is not None:
            shards = None  # what finds duplicates names no shards
        phases = self._monitoring.begin(span)
        registered = rules.begin() if prepared is None else prepared.registered
        router: Router | None = None
        counted = Counted()
        now = self._clock.now()
        try:
            async with database.transaction() as connection:
                phases.end(CONNECTION)
                transaction = await self._begin(connection, rules, group, now, careful, shards)
                router = transaction.router
                phases.end(RULES)
                if prepared is not None:
                    await new_names.register(transaction, prepared)
                await rules.load_facts(connection, router, group.events, now, registered)
                moved = None
                if router.enforces or group.settles:
                    countable = without_too_late(transaction, without_erased(transaction, group.events))
                    moved = await open_usage_meters(transaction, self._targets, countable, registered.customers)
                    if moved is not None:
                        if prepared is not None and prepared.registered and moved.transaction.shards is None:
                            raise NeedsCoordinator  # what it has registered is not known to Citus
                        transaction = moved.transaction
                phases.end(FACTS)
                stored = await store(transaction, group, native=self._native, duplicates=duplicates)
                phases.end(STORE)
                if stored.new:
                    counted = await self._count(
                        transaction, stored.new, registered, group.include_gauges, meters=moved
                    )
                elif moved is not None:
                    await moved.write()
                phases.end(COUNT)
        except BaseException:
            rules.rolled_back(router, registered)
            raise
        phases.end(COMMIT)
        rules.committed(registered)
        self.gauges_moved = len(counted.movements)
        return await self._outcomes(phases, transaction, group, stored, counted)

    async def prepare(self, database: Database, group: CommitGroup) -> Prepared:
        """Reads, at the coordinator, what the events name, so that a node can commit them; see `new_names`.

        `run` must follow with the result. Raises NotAtNode, and what the statements raise.
        """
        return await new_names.prepare(database, self.rules, self.organization_id, group.events, self._clock.now())

    async def _run_small(
        self,
        database: Database,
        rules: OrganizationRules,
        group: CommitGroup,
        span: Span,
        plan: CommitPlan,
        shards: ShardsOf | None,
    ) -> list[Outcome]:
        """Commits as planned. Raises NotAsPlanned, after which nothing is stored."""
        phases = self._monitoring.begin(span)
        registered, now = rules.begin(), self._clock.now()
        self.gauges_moved = 0  # it says nothing about larger commits
        registered.named.update(event.customer_id for event in plan.events)  # before another commit may forget them
        try:
            async with database.unbegun_transaction() as connection:
                phases.end(CONNECTION)
                raw = await driver(connection)
                done = await plan.carry_out(raw, self.organization_id, now, group.include_gauges, shards)
                transaction = self._transaction(connection, raw, plan.router, group, done.standing, now)
                await rules.load_facts(connection, plan.router, plan.events, now, registered)  # only counts the names
                if plan.movements is None:
                    counted = await self._count(transaction, plan.events, registered, group.include_gauges, done.held)
                else:
                    counted = await count_moved(transaction, plan.movements, done.moved)
                phases.end(TOGETHER)
            phases.end(COMMIT)
        finally:
            rules.committed(registered)  # nothing is registered, so after a rollback nothing has to be forgotten
        stored = Stored(list(plan.events), [], [], [], [])
        return await self._outcomes(phases, transaction, group, stored, counted, small=True)

    async def _outcomes(
        self,
        phases: CommitPhases,
        transaction: Transaction,
        group: CommitGroup,
        stored: Stored,
        counted: Counted,
        *,
        small: bool = False,
    ) -> list[Outcome]:
        """What a commit that has ended made of its batches."""
        outcomes = await _outcomes(transaction, group, stored, counted)
        phases.end(OUTCOMES)
        events = len(group.events) + len(group.repeated)
        self._monitoring.committed(phases, outcomes, events, self._organization.name, small=small)
        return outcomes

    async def _begin(
        self,
        connection: Connection,
        rules: OrganizationRules,
        group: CommitGroup,
        now: datetime,
        careful: bool,
        shards: ShardsOf | None,
    ) -> Transaction:
        """Takes the organization's lock, shared, and reads the rules that its epoch lacks."""
        raw = await driver(connection)
        used = set() if shards is None else set(shards.values())
        async with raw.pipeline():
            cursor = await organizations.send_lock_shared(raw, self.organization_id)
            placed = await shard_tables.send_hold(raw, used) if used else None
        standing = await organizations.locked(cursor)
        if placed is not None:
            await shard_tables.check(placed, used)
        if marker_of(raw) is not None and not (
            rules.cached.epoch == standing.epoch and knows(rules.cached, group.events)
        ):
            raise NeedsCoordinator  # a node does not show all of a change in one moment
        router = await rules.router(connection, standing.epoch, in_parts=True)
        return self._transaction(connection, raw, router, group, standing, now, careful, shards)

    def _transaction(
        self,
        connection: Connection,
        raw: DriverConnection,
        router: Router,
        group: CommitGroup,
        standing: LockedOrganization,
        now: datetime,
        careful: bool = False,
        shards: ShardsOf | None = None,
    ) -> Transaction:
        """The transaction that holds the organization's lock."""
        if standing.name != self._organization.name:  # it was renamed after this committer was made
            self._organization = Organization(self.organization_id, standing.name)
        return Transaction(
            connection,
            raw,
            self._organization,
            router,
            now,
            self._grace,
            standing.epoch,
            self._rules.max_groups,
            careful,
            group if group.is_traced else None,
            shards,
        )

    async def _count(
        self,
        transaction: Transaction,
        new: Sequence[UsageEvent],
        registered: Registered,
        all_values: bool,
        held: dict[str, Wallet] | None = None,
        meters: UsageMeters | None = None,
    ) -> Counted:
        if meters is None:
            return await count(transaction, new, registered.customers, all_values, held)
        settling = await meters.count(new)
        await meters.write()
        counted = await count(
            transaction,
            new,
            registered.customers,
            all_values,
            meters.drawing(new),
            settling,
            holds=meters.holds,
        )
        counted.over = meters.over(new)
        return counted


async def _outcomes(transaction: Transaction, group: CommitGroup, stored: Stored, counted: Counted) -> list[Outcome]:
    """What a commit that has ended made of its batches; lets the router skip what it need not watch any more."""
    # Only after the commit: if the exclusion rolled back, the router would skip a gauge that is still watched. A
    # router of a younger epoch has read the exclusion, or its end.
    if transaction.router.epoch == transaction.epoch:
        for one in counted.excluded:
            transaction.router.exclude(*one)
    return await outcomes_of(transaction, group, stored, counted)
