"""The small commit: a few events of known customers are stored and counted in one round trip before the commit.

The ordinary way takes five, because each step needs the result of the one before. Here all steps are planned with the
cached rules, before the transaction begins, and their statements are sent together. What they return shows whether
the plan was right: the rules are those of the organization's epoch, every event was new, and no customer has balances
that usage draws on. Otherwise the transaction is rolled back, and the ordinary way follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.evaluation.subjects import Movement
from engine.ingest.group import CommitGroup
from engine.ingest.routing import additive, moves_of, route_at_once
from engine.rules.loading import is_known
from evaluator.amounts import exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.routing import Router
from evaluator.watched_gauges import WatchedGauge
from store.citus.shard_tables import ShardsOf
from store.commits import small
from store.commits.small import Done
from store.postgres.database import DriverConnection

# Events above which a commit is not small. An INSERT costs PostgreSQL more for each event than a COPY, which takes
# two round trips.
MOST_EVENTS = 20


class NotAsPlanned(Exception):
    """A small commit must be rolled back. duplicates: whether some of its events were stored before."""

    def __init__(self, *, duplicates: bool) -> None:
        super().__init__("a small commit is not as planned")
        self.duplicates = duplicates


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """What a small commit is going to do.

    router, epoch: the rules by which it was made; the router may be of a younger epoch when the plan is carried out.
    events: each with its currency. movements: None where a customer is known to have balances that usage draws on:
    these have to be locked before gauges.
    """

    router: Router
    epoch: int
    events: Sequence[UsageEvent]
    movements: dict[WatchedGauge, Movement] | None

    async def carry_out(
        self,
        connection: DriverConnection,
        organization_id: int,
        now: datetime,
        all_values: bool,
        shards: ShardsOf | None = None,
    ) -> Done:
        """Sends the statements. Raises NotAsPlanned where the transaction must be rolled back.

        shards: of the customers, at a node of a cluster; then NeedsCoordinator is raised if one lies elsewhere now.
        """
        customer_ids = {event.customer_id for event in self.events}
        with exact_arithmetic():
            moves = moves_of(additive(self.movements or {}))
        done = await small.store_and_move(
            connection, organization_id, now, self.events, customer_ids, moves, all_values, shards
        )
        if done.standing.epoch != self.epoch:
            raise NotAsPlanned(duplicates=False)
        if done.stored != len(self.events):
            raise NotAsPlanned(duplicates=True)
        for customer_id in customer_ids:
            self.router.known[customer_id].draws = customer_id in done.held
        if done.held and self.movements is not None:
            raise NotAsPlanned(duplicates=False)
        return done


def plan_of(router: Router, group: CommitGroup, oldest: datetime) -> CommitPlan | None:
    """The plan of a small commit; None where the ordinary way has to be taken.

    oldest: periods that end before are not counted any more.
    """
    events = group.events
    if len(events) > MOST_EVENTS or group.repeated or not is_known(router, events):
        return None
    customers = [router.known[event.customer_id] for event in events]
    if any(event.event_time <= oldest for event in events) or any(one.facts.being_erased for one in customers):
        return None
    if group.settles or (router.enforces and any(router.is_covered(event.customer_id) for event in events)):
        return None
    events = [router.with_currency(event) for event in events]
    if any(one.draws for one in customers):
        return CommitPlan(router, router.epoch, events, None)
    with exact_arithmetic():
        return CommitPlan(router, router.epoch, events, route_at_once(router, events))
