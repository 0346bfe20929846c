"""Where a commit runs: at the node of a cluster where its customers lie, or at the coordinator.

One PostgreSQL is a coordinator without nodes. On a cluster, a transaction at the coordinator reads what events name
and the process does not know; the node then registers what does not exist, and stores the events. What a node cannot
do at all, the coordinator does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from engine.ingest.batches import Outcome
from engine.ingest.commit_transactions import CommitTransactions
from engine.ingest.group import CommitGroup
from engine.ingest.monitoring import AT_NODE, NODE_AWAY, NODE_COULD_NOT, UNKNOWN_TO_NODE, IngestMonitoring
from engine.ingest.nodes import CommitNode
from engine.rules.loading import knows
from engine.rules.preparing import NotAtNode, Prepared
from runtime.fair_semaphore import FairSemaphore
from runtime.tracing.spans import Span
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.distributed import NeedsCoordinator
from store.postgres.failures import Discard
from store.usage.events import DuplicateEvents

AWAY_SECONDS = 5.0  # for which the coordinator commits what a worker should, after one that was not reached


class CommitPlaces:
    """The coordinator, and perhaps the node, of the customers of one lane."""

    def __init__(
        self,
        transactions: CommitTransactions,
        coordinator: Database,
        node: CommitNode | None,
        monitoring: IngestMonitoring,
        coordinator_gate: FairSemaphore | None = None,
    ) -> None:
        """coordinator_gate: has the seats for what is committed at the coordinator instead of the node."""
        self._coordinator_gate = coordinator_gate
        self._transactions = transactions
        self._coordinator = coordinator
        self._node = node
        self._monitoring = monitoring
        self._away_until = 0.0  # by the event loop's clock

    async def commit(
        self,
        group: CommitGroup,
        span: Span,
        between: Callable[[], Awaitable[None]],
        duplicates: DuplicateEvents | None = None,
        *,
        careful: bool,
    ) -> list[Outcome]:
        """Commits at the node, if it can, or else at the coordinator.

        between: awaited after a node that was not reached. duplicates, careful: see `CommitTransactions.run`.
        """
        if self._node is not None and not careful:
            if self._away_until >= asyncio.get_running_loop().time():
                self._monitoring.placed[NODE_AWAY,] += 1
            else:
                done = await self._known_at_node(self._node, group, span, between, duplicates)
                if done is not None:
                    return done
        async with self._seat():
            return await self._transactions.run(self._coordinator, group, span, duplicates, careful=careful)

    def _seat(self) -> AbstractAsyncContextManager[object]:
        """A seat for a transaction at the coordinator."""
        if self._coordinator_gate is None:
            return nullcontext()
        return self._coordinator_gate.seat(self._transactions.organization_id)

    async def _known_at_node(
        self,
        node: CommitNode,
        group: CommitGroup,
        span: Span,
        between: Callable[[], Awaitable[None]],
        duplicates: DuplicateEvents | None,
    ) -> list[Outcome] | None:
        """As `_at_node`, after what the events name is read, if it is not known."""
        if knows(self._transactions.rules.cached, group.events):
            return await self._at_node(node, group, span, between, duplicates)
        try:
            if duplicates is not None:
                raise NotAtNode
            async with self._seat():
                prepared = await self._transactions.prepare(self._coordinator, group)
        except NotAtNode:
            self._monitoring.placed[UNKNOWN_TO_NODE,] += 1
            return None
        span.event("prepared at the coordinator")
        return await self._at_node(node, group, span, between, None, prepared)

    async def _at_node(
        self,
        node: CommitNode,
        group: CommitGroup,
        span: Span,
        between: Callable[[], Awaitable[None]],
        duplicates: DuplicateEvents | None,
        prepared: Prepared | None = None,
    ) -> list[Outcome] | None:
        """Commits at the node. Returns None if the coordinator has to commit all of it.

        The node has then stored nothing, or it was lost and may have stored all: repeating it is safe.
        """
        customers = {event.customer_id for event in group.events}
        try:
            done = await self._transactions.run(
                node.worker.database, group, span, duplicates, shards=node.shards_of(customers), prepared=prepared
            )
        except NeedsCoordinator:
            span.event("goes to the coordinator")
            self._monitoring.placed[NODE_COULD_NOT,] += 1
            return None
        except DatabaseUnavailable as error:
            if error.failure.discard is Discard.NOTHING:
                raise
            self._away_until = asyncio.get_running_loop().time() + AWAY_SECONDS
            # The coordinator is another server. This is its first try: its connections may have died, too.
            self._monitoring.placed[NODE_AWAY,] += 1
            span.event("tried again")
            await between()
            return None
        self._monitoring.placed[AT_NODE,] += 1
        return done
