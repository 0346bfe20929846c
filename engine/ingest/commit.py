"""The commit: events of several batches are made durable, counted and evaluated in one transaction.

Its steps, in order: facts of the events (`engine.rules`), `storing`, `counting` (drawdown, `routing`, gauges,
evaluation), and after the commit `outcomes`. A few events of known customers take a shorter way (`small_commit`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from engine.ingest import commit_span
from engine.ingest.batches import Batch, Outcome, add_part, of_customers
from engine.ingest.containment import Containment
from engine.ingest.counting import Counted, count, count_moved
from engine.ingest.group import CommitGroup, group_in_slices
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
from engine.ingest.refusal_reports import RefusalReports
from engine.ingest.small_commit import CommitPlan, NotAsPlanned, plan_of
from engine.ingest.storing import Stored, store
from engine.limits import DEFAULT_LIMITS
from engine.meters.known_targets import KnownTargets
from engine.meters.usage_meters import UsageMeters, open_usage_meters
from engine.rules.loading import Registered, is_known
from engine.rules.organization_rules import OrganizationRules
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from evaluator.routing import Router
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from runtime.tracing.spans import Span
from runtime.turns import Slices
from store.balances.wallets import Wallet
from store.identity import organizations
from store.identity.organizations import LockedOrganization, Organization
from store.postgres.database import Connection, Database, DatabaseUnavailable, DriverConnection, driver
from store.postgres.distributed import NeedsCoordinator, marker_of
from store.postgres.failures import Discard
from store.postgres.retries import FIRST_PAUSE, Tries
from store.usage.events import DuplicateEvents, EventsVoided

NODE_AWAY = 5.0  # seconds for which the coordinator commits what a worker should, after one that was not reached

logger = logging.getLogger(__name__)

_FAILED = "a commit failed; its events are committed without those that cannot be recorded"

# Tries of a commit whose duplicates were voided meanwhile. After so many, it is not a void: the key of an event is,
# by chance, that of another one (see `store.tables.event_key`). Then containment refuses that event.
VOIDED_TRIES = 10


async def _at_once() -> None:
    """The default of `between_commits`: nothing has to go on meanwhile."""


class Committer:
    """Commits batches of one organization."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        rules: RulesRegistry,
        organization: Organization,
        *,
        containment_commits: int = DEFAULT_LIMITS.ingest.containment_commits,
        between_commits: Callable[[], Awaitable[None]] = _at_once,
        first_pause: float = FIRST_PAUSE,
        native: bool = True,
        monitoring: IngestMonitoring | None = None,
        node: Database | None = None,
        coordinator_gate: FairSemaphore | None = None,
    ) -> None:
        """`grace`: how long after its end a period still counts late events.

        `containment_commits`: see `IngestLimits`. `between_commits`: awaited before a commit is tried again after one
        that failed, so that other organizations go on meanwhile. `first_pause`: see `Tries`. `native`: whether rows
        are written by compiled code, where there is some. `node`: the worker of a cluster where the customers lie.
        `coordinator_gate`: has the seats for what is committed at the coordinator in its stead.
        """
        self._node = node
        self._coordinator_gate = coordinator_gate
        self._node_is_away_until = 0.0  # by the event loop's clock
        self._database = database
        self._clock = clock
        self._grace = grace
        self._rules = rules
        self._organization_id = organization.organization_id
        self._organization = organization
        self._containment_commits = containment_commits
        self._between_commits = between_commits
        self._first_pause = first_pause
        self._native = native
        self._monitoring = monitoring or IngestMonitoring()
        self._targets = KnownTargets()
        self.gauges_moved = 0  # by the last commit
        self._reports = RefusalReports(database, clock, organization.organization_id)

    async def commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Stores, counts and evaluates, by `together` and, where that fails, by `contain`."""
        outcomes = await self.together(batches)
        return await self.contain(batches, self._between_commits) if outcomes is None else outcomes

    async def together(self, batches: Sequence[Batch]) -> list[Outcome] | None:
        """Stores, counts and evaluates in one transaction; when it returns the outcomes everything is durable.

        Returns None, and has stored nothing, if that fails for what it writes: then `contain` them. Raises
        DatabaseUnavailable when the database is; then nothing may have happened, or all: sending the same batches
        again is safe.
        """
        try:
            return await self._attempt(batches, self._between_commits)
        except NeedsCoordinator as error:
            return await self._apart(batches, error.customer_ids)
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.warning(_FAILED, exc_info=True, extra={"action": LogAction.COMMIT_FAILED})
            return None

    async def _apart(self, batches: Sequence[Batch], customer_ids: Collection[str]) -> list[Outcome]:
        """Commits events of these customers at the coordinator, and those of the others at the node."""
        outcomes = [Outcome() for _ in batches]
        moved = 0
        for theirs in (False, True):
            parts, places = of_customers(batches, customer_ids, named=theirs)
            found = await self._part(parts, at_node=not theirs)
            moved += self.gauges_moved
            for (number, indexes), outcome in zip(places, found, strict=True):
                add_part(outcomes[number], outcome, indexes)
        self.gauges_moved = moved
        return outcomes

    async def _part(self, batches: Sequence[Batch], *, at_node: bool) -> list[Outcome]:
        """Like `commit`, and tries the node once. What is committed before it stays, so it contains what fails."""
        try:
            if at_node:
                with suppress(NeedsCoordinator):
                    return await self._attempt(batches, self._between_commits)
            return await self._attempt(batches, self._between_commits, at_node=False)
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.warning(_FAILED, exc_info=True, extra={"action": LogAction.COMMIT_FAILED})
            return await self.contain(batches, self._between_commits)

    async def contain(self, batches: Sequence[Batch], between: Callable[[], Awaitable[None]]) -> list[Outcome]:
        """Commits batches that cannot be committed together, and rejects only the events that cannot be recorded.

        between: awaited before each commit. Raises DatabaseUnavailable when the database is; then some of the events
        may be stored.
        """

        async def attempt(part: Sequence[Batch]) -> list[Outcome]:
            await between()
            return await self._attempt(part, between, careful=True)

        self._monitoring.divided += 1
        contained = await Containment(attempt, batches, self._containment_commits).commit()
        self._monitoring.unrecorded(len(contained.refused))
        await self._reports.write(contained.refused)
        return contained.outcomes

    async def _attempt(
        self,
        batches: Sequence[Batch],
        between: Callable[[], Awaitable[None]],
        *,
        careful: bool = False,
        at_node: bool = True,
    ) -> list[Outcome]:
        group = await group_in_slices(batches, Slices(self._organization_id))
        node = None if careful or not at_node else self._node
        with commit_span.begin(self._organization_id, group) as span:
            return await self._try(group, span, between, node, careful=careful)

    async def _try(
        self,
        group: CommitGroup,
        span: Span,
        between: Callable[[], Awaitable[None]],
        node: Database | None,
        *,
        careful: bool,
    ) -> list[Outcome]:
        """Commits, again after failures that allow it. Raises NeedsCoordinator if some of it cannot be at a node."""
        tries, voided = Tries(first_pause=self._first_pause), 0
        while True:
            try:
                try:
                    return await self._commit(group, span, node, careful=careful)
                except DuplicateEvents as found:
                    span.event("duplicates found")
                    return await self._commit(group, span, node, found, careful=careful)
            except EventsVoided:  # their duplicates are new events now
                voided += 1
                if voided == VOIDED_TRIES:
                    raise
            except DatabaseUnavailable as error:
                # Events are identified by their ids, so the transaction may be repeated after a commit, too. A
                # connection that was lost while it was idle fails its next transaction, which then gets another one.
                if not await tries.another(error):
                    raise
                span.event("tried again")
                await between()

    async def _commit(
        self,
        group: CommitGroup,
        span: Span,
        node: Database | None,
        duplicates: DuplicateEvents | None = None,
        *,
        careful: bool,
    ) -> list[Outcome]:
        """Commits at a node, if the customers have one, or else at the coordinator."""
        if node is not None and self._can_run_at_node(self._rules.of(self._organization_id), group):
            try:
                return await self._commit_in(node, group, span, duplicates, careful=False)
            except NeedsCoordinator as error:
                span.event("goes to the coordinator")
                customers = {event.customer_id for event in group.events}
                if error.customer_ids and 2 * len(error.customer_ids) <= len(customers):
                    raise
            except DatabaseUnavailable as error:
                if error.failure.discard is not Discard.NOTHING:
                    self._node_is_away_until = asyncio.get_running_loop().time() + NODE_AWAY
                raise
        if self._coordinator_gate is None:
            return await self._commit_in(self._database, group, span, duplicates, careful=careful)
        async with self._coordinator_gate.seat(self._organization_id):
            return await self._commit_in(self._database, group, span, duplicates, careful=careful)

    def _can_run_at_node(self, rules: OrganizationRules, group: CommitGroup) -> bool:
        """Whether the rules that events need are cached, so that only a newer epoch sends them to the coordinator."""
        return is_known(rules.cached, group.events) and self._node_is_away_until < asyncio.get_running_loop().time()

    async def _commit_in(
        self,
        database: Database,
        group: CommitGroup,
        span: Span,
        duplicates: DuplicateEvents | None,
        *,
        careful: bool,
    ) -> list[Outcome]:
        """Commits in a transaction of the coordinator, or of a node. Raises NeedsCoordinator at a node."""
        rules = self._rules.of(self._organization_id)
        is_first = duplicates is None and not careful
        if is_first and (plan := plan_of(rules.cached, group, self._clock.now() - self._grace)):
            try:
                return await self._commit_small(database, rules, group, span, plan)
            except NotAsPlanned as error:
                duplicates = DuplicateEvents() if error.duplicates else None
        phases = self._monitoring.begin(span)
        registered = rules.begin()
        router: Router | None = None
        counted = Counted()
        now = self._clock.now()
        try:
            async with database.transaction() as connection:
                phases.end(CONNECTION)
                transaction = await self._begin(connection, rules, group, now, careful)
                router = transaction.router
                phases.end(RULES)
                await rules.load_facts(connection, router, group.events, now, registered)
                moved = None
                if router.enforces or group.settles:
                    countable = without_too_late(transaction, without_erased(transaction, group.events))
                    moved = await open_usage_meters(transaction, self._targets, countable, registered.customers)
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

    async def _commit_small(
        self, database: Database, rules: OrganizationRules, group: CommitGroup, span: Span, plan: CommitPlan
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
                done = await plan.carry_out(raw, self._organization_id, now, group.include_gauges)
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
        self, connection: Connection, rules: OrganizationRules, group: CommitGroup, now: datetime, careful: bool
    ) -> Transaction:
        """Takes the organization's lock, shared, and reads the rules that its epoch lacks."""
        standing = await organizations.lock_shared_with_name(connection, self._organization_id)
        raw = await driver(connection)
        if marker_of(raw) is not None and not (
            rules.cached.epoch == standing.epoch and is_known(rules.cached, group.events)
        ):
            raise NeedsCoordinator  # a node does not show all of a change in one moment
        router = await rules.router(connection, standing.epoch)
        return self._transaction(connection, raw, router, group, standing, now, careful)

    def _transaction(
        self,
        connection: Connection,
        raw: DriverConnection,
        router: Router,
        group: CommitGroup,
        standing: LockedOrganization,
        now: datetime,
        careful: bool = False,
    ) -> Transaction:
        """The transaction that holds the organization's lock."""
        if standing.name != self._organization.name:  # it was renamed after this committer was made
            self._organization = Organization(self._organization_id, standing.name)
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
