"""The transaction in which gauges are evaluated: the values that each of its steps needs."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.rules.event_traces import EventTraces
from engine.rules.loading import Loading, Registered
from engine.rules.registry import RulesRegistry
from evaluator.alerts import AlertRule
from evaluator.events import UsageEvent
from evaluator.routing import Router
from runtime.clock import Clock
from runtime.turns import Slices
from store.alerts import active_rules
from store.citus.shard_tables import ShardsOf
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres import apart
from store.postgres.database import Connection, Database, DriverConnection, driver
from store.postgres.distributed import on_cluster


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction that holds the organization's lock.

    driver: the driver's own connection below `connection`. router: the rules that stand until the transaction ends;
    only that of ingest knows customers already.
    now: the time that the transaction gives to what it records. grace: how long after its end a period still counts
    late events. epoch: the rules epoch that evaluated gauges get. max_groups: the group limit of every alert.
    careful: an evaluation that cannot be recorded raises `Unrecordable`, with its cause and its events.
    traces: those of its events, where any has one; None: all that it records belongs to the current trace, if any.
    shards: of the customers of its usage, if it holds them at a node of a cluster, and changes nothing elsewhere:
    Citus does not know of changes that name the tables of shards, and decides by those that it knows whether a commit
    needs two phases.
    """

    connection: Connection
    driver: DriverConnection
    organization: Organization
    router: Router
    now: datetime
    grace: timedelta
    epoch: int
    max_groups: int
    careful: bool = False
    traces: EventTraces | None = None
    shards: ShardsOf | None = None

    @property
    def organization_id(self) -> int:
        """The id of the organization, which every row carries."""
        return self.organization.organization_id

    async def rule(self, alert_id: str) -> AlertRule | None:
        """The rule of an active alert; None if the alert is not active."""
        wide = self.router.wide.get(alert_id)
        if wide is not None:
            return wide
        return (await active_rules.rules_with_ids(self.driver, self.organization_id, [alert_id])).get(alert_id)

    async def load_facts(self, events: Sequence[UsageEvent]) -> None:
        """Reads the customers, subscriptions and metrics of stored events; its router must not be that of ingest."""
        loading = Loading(self.driver, self.organization_id, self.router, self.now, Registered())
        await loading.load(events)

    def slices(self) -> Slices:
        """Slices for a piece of long work on the event loop."""
        return Slices(self.organization.organization_id)


class Transactions:
    """Opens transactions that evaluate gauges without new usage."""

    def __init__(self, database: Database, clock: Clock, grace: timedelta, rules: RulesRegistry) -> None:
        """`grace`: how long after its end a period still counts late events, and an invoice is still evaluated."""
        self._database = database
        self._clock = clock
        self._grace = grace
        self._rules = rules

    @asynccontextmanager
    async def open(
        self,
        organization: Organization,
        traces: EventTraces | None = None,
        *,
        customer_ids: Collection[str] | None = None,
    ) -> AsyncIterator[Transaction]:
        """A transaction of its own, which is committed at the end. Raises DatabaseUnavailable.

        customer_ids: it reads facts of these customers, and of those above them, only. Then it can begin while a node
        of a cluster is away that has none of them.
        """
        async with self._database.transaction() as connection:
            yield await self.begin(connection, organization, traces, customer_ids=customer_ids)

    async def begin(
        self,
        connection: Connection,
        organization: Organization,
        traces: EventTraces | None = None,
        *,
        customer_ids: Collection[str] | None = None,
    ) -> Transaction:
        """Takes the organization's lock, shared, in a transaction that has not raised the epoch."""
        epoch = await organizations.lock_shared(connection, organization.organization_id)
        # Read under the lock: a change that waited for it happens when it gets the lock, not when it was sent.
        now = self._clock.now()
        rules, raw = self._rules.of(organization.organization_id), await driver(connection)
        if customer_ids is not None and on_cluster(raw) and apart.is_needed(connection):
            router = await rules.router_of(connection, epoch, customer_ids)
        else:
            with apart.noticing(connection):
                router = await rules.router(connection, epoch)
        max_groups = self._rules.max_groups
        return Transaction(
            connection, raw, organization, router.apart(), now, self._grace, epoch, max_groups, traces=traces
        )
