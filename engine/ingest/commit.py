"""The commit: events of several batches are made durable, counted and evaluated in one transaction.

`commit_transactions` has the steps of that transaction, `commit_places` says where it runs. Here is what happens when
it fails: it is tried again, or made without the events that cannot be recorded.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from engine.ingest import commit_span
from engine.ingest.batches import Batch, Outcome
from engine.ingest.commit_places import CommitPlaces
from engine.ingest.commit_transactions import CommitTransactions
from engine.ingest.containment import Containment
from engine.ingest.group import CommitGroup, group_in_slices
from engine.ingest.monitoring import IngestMonitoring
from engine.ingest.nodes import CommitNode
from engine.ingest.refusal_reports import RefusalReports
from engine.limits import DEFAULT_LIMITS
from engine.rules.registry import RulesRegistry
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from runtime.tracing.spans import Span
from runtime.turns import Slices
from store.identity.organizations import Organization
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.retries import FIRST_PAUSE, Tries
from store.usage.events import DuplicateEvents, EventsVoided

logger = logging.getLogger(__name__)

# Tries of a commit whose duplicates were voided meanwhile. After so many, it is not a void: the key of an event is,
# by chance, that of another one (see `store.tables.event_key`). Then containment refuses that event.
VOIDED_TRIES = 10


async def at_once() -> None:
    """Between two commits, where nothing has to go on meanwhile."""


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
        between_commits: Callable[[], Awaitable[None]] = at_once,
        first_pause: float = FIRST_PAUSE,
        native: bool = True,
        monitoring: IngestMonitoring | None = None,
        node: CommitNode | None = None,
        coordinator_gate: FairSemaphore | None = None,
    ) -> None:
        """`grace`: how long after its end a period still counts late events.

        `containment_commits`: see `IngestLimits`. `between_commits`: awaited before a commit is tried again after one
        that failed, so that other organizations go on meanwhile. `first_pause`: see `Tries`. `native`: whether rows
        are written by compiled code, where there is some. `node`: the worker of a cluster where the customers lie.
        `coordinator_gate`: has the seats for what is committed at the coordinator in its stead.
        """
        self._organization_id = organization.organization_id
        self._containment_commits = containment_commits
        self._between_commits = between_commits
        self._first_pause = first_pause
        self._monitoring = monitoring or IngestMonitoring()
        self._transactions = CommitTransactions(
            clock, grace, rules, organization, native=native, monitoring=self._monitoring
        )
        self._places = CommitPlaces(self._transactions, database, node, self._monitoring, coordinator_gate)
        self._reports = RefusalReports(database, clock, organization.organization_id)

    @property
    def gauges_moved(self) -> int:
        """By the last commit."""
        return self._transactions.gauges_moved

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
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.warning(
                "a commit failed; its events are committed without those that cannot be recorded",
                exc_info=True,
                extra={"action": LogAction.COMMIT_FAILED},
            )
            return None

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
        self, batches: Sequence[Batch], between: Callable[[], Awaitable[None]], *, careful: bool = False
    ) -> list[Outcome]:
        group = await group_in_slices(batches, Slices(self._organization_id))
        with commit_span.begin(self._organization_id, group) as span:
            return await self._try(group, span, between, careful=careful)

    async def _try(
        self, group: CommitGroup, span: Span, between: Callable[[], Awaitable[None]], *, careful: bool
    ) -> list[Outcome]:
        """Commits, again after failures that allow it."""
        tries, voided = Tries(first_pause=self._first_pause), 0
        while True:
            try:
                try:
                    return await self._places.commit(group, span, between, careful=careful)
                except DuplicateEvents as found:
                    span.event("duplicates found")
                    return await self._places.commit(group, span, between, found, careful=careful)
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
