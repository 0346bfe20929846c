"""The cached rules of one organization: a router, which is brought from one epoch to the next by what changed.

The router is changed in place. Every transaction that uses it holds the organization's lock, shared. A new epoch is
committed under the exclusive lock, so no transaction of the epoch before is open when the first one of the new epoch
brings the router up to date. What a transaction does after its commit must not rely on the router: it may belong to a
younger epoch by then.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

from engine.rules.loading import Loading, Naming, Registered
from engine.rules.monitoring import RulesMonitoring
from engine.rules.preparing import Preparing
from engine.rules.reading import Reading
from evaluator.alert_index import WideAlerts
from evaluator.enforcement.usage import Usage
from evaluator.routing import Router
from evaluator.routing_facts import MOST_LEVELS, MetricFacts
from runtime.turns import Slices
from store.alerts import active_rules
from store.customers import levels
from store.identity import node_epochs
from store.limits import effective_limits
from store.postgres.database import Connection, DriverConnection, driver
from store.rules import routing_facts, rule_changes
from store.rules.rule_changes import RuleChanges

# With more customers than this, the router forgets those that no commit has named for longest. It bounds the memory
# of one organization.
MAX_CUSTOMERS = 100_000
# A router that lacks more changes than this is replaced by one that knows no customers.
MAX_CHANGES = 20_000

_NOTHING_READ = -1  # the epoch of a router before anything was read; it is below every epoch of the database


class OrganizationRules:
    """The wide alerts of one organization, and the alerts and facts of the customers that send usage.

    All tasks of one event loop share it.
    """

    def __init__(
        self,
        organization_id: int,
        *,
        max_customers: int = MAX_CUSTOMERS,
        with_alerts: bool = True,
        monitoring: RulesMonitoring | None = None,
        shown_epoch: Callable[[int], int] | None = None,
    ) -> None:
        """`with_alerts`: without them, only facts and limits are cached, for what evaluates nothing.

        `shown_epoch`: see `RulesRegistry`.
        """
        self._shown_epoch = shown_epoch
        self._monitoring = monitoring or RulesMonitoring()
        self._organization_id = organization_id
        self._max_customers = max_customers
        self._with_alerts = with_alerts
        self._router = Router(_NOTHING_READ)
        self._was_shown = False  # whether all nodes of a cluster were found to show the router's epoch
        self._catching_up = asyncio.Lock()
        self._open: list[Registered] = []  # of the commits that use the router

    async def router(self, connection: Connection, epoch: int, *, in_parts: bool = False) -> Router:
        """The router of ingest at `epoch`, with the customers that events have named.

        The transaction holds the organization's lock, so that the epoch stands, and has not raised it. The router may
        be used until the transaction ends. in_parts: facts are read by `load_facts` and `read_facts` alone. Then a
        process that has read no rules yet can begin while a node of a cluster is away, and serve customers of others.
        """
        if self._router.epoch != epoch:
            async with self._catching_up:
                if self._router.epoch != epoch:
                    before, began = self._router, time.perf_counter()
                    await self._catch_up(connection, epoch, in_parts=in_parts)
                    self._monitoring.reloaded(time.perf_counter() - began, everything=self._router is not before)
        if not (in_parts or self._is_shown()):
            await self._require_shown(await driver(connection), epoch)
        return self._router

    async def router_of(self, connection: Connection, epoch: int, customer_ids: Collection[str]) -> Router:
        """As `router`, for a transaction that reads facts of these customers, and of those above them, only.

        While a node of a cluster is away. The nodes of these customers have to show the epoch, and the others need
        not.
        """
        router = await self.router(connection, epoch, in_parts=True)
        if not self._is_shown():
            raw, level = await driver(connection), set(customer_ids)
            for _ in range(MOST_LEVELS):
                if not level:
                    break
                await node_epochs.require_shown_of(raw, self._organization_id, epoch, level)
                level = set((await levels.directly_above(raw, self._organization_id, level)).values())
        return router

    @property
    def cached(self) -> Router:
        """The router as it is, at whatever epoch. What it says holds if that epoch is found to stand later."""
        return self._router

    def read_before(self, epoch: int) -> tuple[int, WideAlerts] | None:
        """The wide alerts as they were last read, with the epoch of that, which is before `epoch`; None if never.

        For a transaction that holds the organization's lock exclusively, so that no other one changes them meanwhile.
        """
        known = _NOTHING_READ < self._router.epoch < epoch
        return (self._router.epoch, self._router.wide) if known else None

    def begin(self) -> Registered:
        """What a commit is going to register. `committed` or `rolled_back` must follow with the same object."""
        registered = Registered()
        self._open.append(registered)
        return registered

    def committed(self, registered: Registered) -> None:
        """Notes that the transaction that registered this is committed."""
        self._open = [one for one in self._open if one is not registered]

    def rolled_back(self, router: Router | None, registered: Registered) -> None:
        """Forgets what a transaction registered that was, or may have been, rolled back, and the routes of it.

        Otherwise the router would know a customer that the database does not have, and no transaction would register
        it again. The rest stays cached.

        router: the transaction's, unless it failed before it had one.
        """
        self.committed(registered)
        if registered:
            for one in {id(one): one for one in (router, self._router) if one is not None}.values():
                registered.forget_in(one)

    async def load_facts(
        self,
        connection: Connection,
        router: Router,
        events: Sequence[Naming],
        now: datetime,
        registered: Registered,
    ) -> None:
        """Reads the customers, subscriptions and metrics of the events that the router lacks; registers unknown ones.

        registered: of this transaction, see `begin`. It gets each new name before the router does.
        """
        loading = Loading(
            await driver(connection), self._organization_id, router, now, registered, not self._is_shown()
        )
        await loading.load(events)
        self._forget_unused(router)

    async def prepare(
        self, connection: Connection, router: Router, events: Sequence[Naming], now: datetime, registered: Registered
    ) -> dict[str, MetricFacts]:
        """As `load_facts`, for a later transaction at a node of a cluster: see `Preparing`.

        registered: what that one has to register. Returns metrics that this transaction has registered; when it is
        committed, `know_metrics` follows. Raises NotAtNode.
        """
        preparing = Preparing(
            await driver(connection), self._organization_id, router, now, registered, not self._is_shown()
        )
        await preparing.load(events)
        self._forget_unused(router)
        return preparing.made

    def know_metrics(self, router: Router, epoch: int, made: Mapping[str, MetricFacts]) -> None:
        """Notes metrics that a committed transaction has registered at an epoch, unless the router is at another."""
        if router is self._router and router.epoch == epoch:
            router.metrics.update(made)

    async def read_facts(
        self, connection: Connection, router: Router, usages: Sequence[Usage], now: datetime
    ) -> Registered:
        """Reads the customers, subscriptions and metrics of usage that the router lacks, and registers nothing.

        See `Reading`. What it returns must be forgotten in the router in the end: it is not registered. Only one task
        may use these rules at a time.
        """
        registered = Registered()
        reading = Reading(
            await driver(connection), self._organization_id, router, now, registered, not self._is_shown()
        )
        await reading.read(usages)
        self._forget_unused(router)
        return registered

    def named(self, router: Router, customer_ids: Iterable[str]) -> None:
        """Notes that usage has named customers that the router knows: those stay known for longer.

        In place of `read_facts`, where there is nothing to be read.
        """
        known = router.known
        for customer_id in customer_ids:
            known[customer_id].named += 1
        self._forget_unused(router)

    def _forget_unused(self, router: Router) -> None:
        over = len(router.known) - self._max_customers
        if over > 0:
            # Twice as many, because of those that were named since the last time all stay.
            used = {name for one in self._open for names in (one.named, one.above) for name in names}
            router.known.forget_unused(2 * over, used)

    async def _require_shown(self, connection: DriverConnection, epoch: int) -> None:
        await node_epochs.require_shown(connection, self._organization_id, epoch)
        self._was_shown = True

    def _is_shown(self) -> bool:
        """Whether all nodes of a cluster are known to show the router's epoch."""
        if not self._was_shown and self._shown_epoch is not None:
            self._was_shown = _NOTHING_READ < self._router.epoch <= self._shown_epoch(self._organization_id)
        return self._was_shown

    async def _catch_up(self, connection: Connection, epoch: int, *, in_parts: bool) -> None:
        """Brings the router to an epoch."""
        router, raw = self._router, await driver(connection)
        self._was_shown = False
        if not in_parts or router.epoch != _NOTHING_READ:
            await self._require_shown(raw, epoch)
        # Epochs only rise while their changes are kept. A database that lost committed changes, as a replica that was
        # promoted may have, gives the same epochs to other changes.
        if not _NOTHING_READ < router.epoch <= epoch:
            wide = await self._wide_alerts(raw) if self._with_alerts else WideAlerts()
            self._router = Router(epoch, wide, await effective_limits.of_plans(raw, self._organization_id))
            return
        changes = await rule_changes.changes_since(raw, self._organization_id, router.epoch, MAX_CHANGES)
        if changes is None or changes.deleted:  # a deletion leaves no row that says what changed
            self._router = Router(_NOTHING_READ)
            await self._catch_up(connection, epoch, in_parts=False)
            return
        await self._apply(raw, router, changes)
        router.epoch = epoch
        self._router = router

    async def _wide_alerts(self, connection: DriverConnection) -> WideAlerts:
        """All wide alerts. There may be very many: they are put into their index in slices."""
        wide, slices = WideAlerts(), Slices(self._organization_id)
        for rule in await active_rules.wide_rules(connection, self._organization_id):
            await slices.pause()
            wide.put(rule)
        return wide

    async def _apply(self, connection: DriverConnection, router: Router, changes: RuleChanges) -> None:
        """Applies changes to a router. After a failure halfway all of it is applied again."""
        organization_id = self._organization_id
        slices = Slices(organization_id)
        if changes.wide_alerts and self._with_alerts:
            rules = await active_rules.rules_with_ids(connection, organization_id, changes.wide_alerts)
            for alert_id in changes.wide_alerts:
                await slices.pause()
                router.change_wide_alert(alert_id, rules.get(alert_id))
        if changes.plans:
            limits = await effective_limits.of_plans(connection, organization_id, changes.plans)
            for plan_id, of_plan in limits.items():
                router.change_plan_limits(plan_id, of_plan)
        for metric_id in changes.deleted_metrics:
            router.forget_metric(metric_id)  # an event that names it has to read it, which cancels its deletion
        if changes.metrics and (router.metrics or router.raw_metrics is not None):
            for metric in await routing_facts.metrics(connection, organization_id, changes.metrics):
                router.change_metric(metric)
        await slices.begin()
        for customer_id in changes.customers:
            if (known := router.known.get(customer_id)) is not None:
                known.outdate()
            await slices.pause()
        for customer_id, alert_ids in changes.alerts.items() if self._with_alerts else ():
            if (known := router.known.get(customer_id)) is not None:
                known.doubt_alerts(alert_ids)
            await slices.pause()
        for customer_id, subscription_ids in changes.subscriptions.items():
            if (known := router.known.get(customer_id)) is not None:
                for subscription_id in subscription_ids:
                    known.doubt_subscription(subscription_id)
            await slices.pause()
