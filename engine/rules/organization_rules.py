"""The cached rules of one organization: a router that is valid while the organization's epoch stands."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from evaluator.events import UsageEvent
from evaluator.limits import Limits
from evaluator.routing import Router
from runtime.turns import Slices
from store.accounts.deletions import FactKind
from store.alerts import alerts, exclusions
from store.identity import organizations
from store.limits import effective_limits
from store.postgres.database import Connection, DriverConnection, driver
from store.usage import routing_facts

# A router that knows more customers than this is replaced by one that knows none, which reads again the customers of
# the events that follow. It bounds the memory of one organization.
MAX_CUSTOMERS = 200_000

_NOTHING_READ = -1  # the epoch of a router before anything was read; it is below every epoch of the database


@dataclass(frozen=True)
class Registered:
    """What one transaction registered implicitly: customers, subscriptions (customer id, id) and metrics, by id.

    Also those subscriptions and metrics whose deletion it cancelled.
    """

    customers: set[str] = field(default_factory=set)
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything was registered."""
        return bool(self.customers or self.subscriptions or self.metrics)


class OrganizationRules:
    """The alerts, limits and facts of one organization, of which a new epoch reads only the changed rows.

    All tasks of one event loop share it. A router is never changed to another epoch: a transaction that began with an
    older one keeps it.
    """

    def __init__(self, organization_id: int) -> None:
        self._organization_id = organization_id
        # Two routers: readers that bring their own facts need not copy those of 200,000 customers for a new epoch.
        self._with_facts = Router(_NOTHING_READ, ())
        self._with_alerts = self._with_facts
        # What open transactions have registered. A router that is made meanwhile does not copy it, because these
        # transactions may still roll back.
        self._open: list[Registered] = []

    async def alerts_at(self, connection: Connection, epoch: int, *, keep: bool = True) -> Router:
        """A router with the alerts and the limits of plans at `epoch`; it may know no customers.

        The transaction holds the organization's lock, so that the epoch stands. A transaction that has raised the
        epoch itself, and changed neither alerts nor plans, asks for the epoch before, without `keep`: it may have
        raised the epoch twice. If it rolls back, another transaction gives the epoch between to other rules.
        """
        known = self._youngest(epoch)
        if known.epoch == epoch:
            return known
        known = await self._unless_deleted(connection, known)
        router = await self._with_alerts_at(connection, known, epoch)
        if keep and epoch > self._with_alerts.epoch:  # another transaction may have stored a younger one meanwhile
            self._with_alerts = router
        return router

    async def router(self, connection: Connection, epoch: int) -> Router:
        """The router of ingest at `epoch`: alerts, limits, and the customers that events have named so far.

        The transaction holds the organization's lock, so that the epoch stands, and has not raised it.
        """
        known = self._youngest(epoch)
        current = self._with_facts
        bounded = len(current.customers) <= MAX_CUSTOMERS
        if current.epoch == epoch and bounded:
            return current
        known = await self._unless_deleted(connection, known)
        current = await self._unless_deleted(connection, current)
        router = await self._with_alerts_at(connection, known, epoch)
        # A router without customers has nothing to bring up to date; "all that ever changed" would be every row.
        if current.customers and bounded:
            await self._copy_facts(await driver(connection), current, router)
        if epoch >= self._with_facts.epoch:  # another transaction may have stored a younger one meanwhile
            self._with_facts = router
        if epoch >= self._with_alerts.epoch:
            self._with_alerts = router
        return router

    def begin(self) -> Registered:
        """What a transaction is going to register. `committed` or `rolled_back` must follow with the same object."""
        registered = Registered()
        self._open.append(registered)
        return registered

    def committed(self, registered: Registered) -> None:
        """Notes that the transaction that registered this is committed."""
        self._open = [one for one in self._open if one is not registered]

    def rolled_back(self, router: Router | None, registered: Registered, events: Iterable[UsageEvent]) -> None:
        """Forgets what a transaction registered that was, or may have been, rolled back, and the routes of it.

        Otherwise the router would know a customer that the database does not have, and no transaction would register
        it again. The rest stays cached: reading all rules of an organization may take seconds.

        router: the transaction's, unless it failed before it had one. events: of the transaction.
        """
        self.committed(registered)
        if not registered:
            return
        events = list(events)
        for one in {id(one): one for one in (router, self._with_facts) if one is not None}.values():
            _remove(one, registered)
            one.forget_routes(
                (event.customer_id, event.subscription_id, event.metric_id)
                for event in events
                if event.customer_id in registered.customers
                or event.metric_id in registered.metrics
                or (event.customer_id, event.subscription_id) in registered.subscriptions
            )

    async def load_facts(
        self,
        connection: Connection,
        router: Router,
        events: Iterable[UsageEvent],
        now: datetime,
        registered: Registered,
    ) -> None:
        """Reads the customers, subscriptions and metrics of the events that the router lacks; registers unknown ones.

        registered: of this transaction, see `begin`. It gets each new name before the router does.
        """
        customers = {event.customer_id for event in events if event.customer_id not in router.customers}
        metrics = {event.metric_id for event in events if event.metric_id not in router.metrics}
        subscriptions = {
            (event.customer_id, event.subscription_id)
            for event in events
            if event.subscription_id is not None
            and (event.customer_id, event.subscription_id) not in router.subscriptions
        }
        raw = "" in metrics  # a raw event has no metric
        metrics.discard("")
        raw_metrics = raw and router.raw_metrics is None
        if not (customers or metrics or subscriptions or raw_metrics):
            return
        # In this order and sorted, in every transaction: two that register the same names wait, and never deadlock.
        loading = _Loading(await driver(connection), self._organization_id, router, now, registered)
        if customers:
            await loading.customers(customers)
        if subscriptions:
            await loading.subscriptions(subscriptions)
        if metrics:
            await loading.metrics(metrics)
        if raw_metrics:
            await loading.raw_metrics()

    def _youngest(self, epoch: int) -> Router:
        """The youngest router that is cached, for a transaction at `epoch`."""
        youngest = max(self._with_facts, self._with_alerts, key=lambda router: router.epoch)
        if youngest.epoch > epoch:
            # Epochs only rise while their changes are kept. A database that lost committed changes, as a replica that
            # was promoted may have, gives the same epochs to other changes.
            youngest = self._with_facts = self._with_alerts = Router(_NOTHING_READ, ())
        return youngest

    async def _unless_deleted(self, connection: Connection, known: Router) -> Router:
        """The router, or an empty one if a row that it knows may have been deleted since."""
        if known.epoch == _NOTHING_READ:
            return known
        deleted = await organizations.deleted_since(connection, self._organization_id, known.epoch)
        return Router(_NOTHING_READ, ()) if deleted else known

    async def _with_alerts_at(self, connection: Connection, known: Router, epoch: int) -> Router:
        """A new router at `epoch` with the alerts and limits of a known one, and what changed of them since."""
        active, plan_limits = dict(known.alerts), dict(known.plan_limits)
        if known.epoch != epoch:
            slices = Slices(self._organization_id)
            for definition in await alerts.changed_since(connection, self._organization_id, known.epoch):
                await slices.pause()
                rule = definition.active_rule()
                if rule is None:
                    active.pop(definition.alert_id, None)
                else:
                    active[rule.alert_id] = rule
            changed = await effective_limits.of_plans_since(
                await driver(connection), self._organization_id, known.epoch
            )
            for plan_id, limits in changed.items():
                plan_limits[plan_id] = Limits(limits, plan_limits.get(plan_id))
        return Router(epoch, active.values(), plan_limits)

    async def _copy_facts(self, connection: DriverConnection, current: Router, router: Router) -> None:
        """Copies the facts that an older router knows, and applies what changed of them since."""
        router.customers.update(current.customers)
        router.subscriptions.update(current.subscriptions)
        router.metrics.update(current.metrics)
        for registered in self._open:
            _remove(router, registered)
        since = self._organization_id, current.epoch
        # Before what changed: what was deleted and created again is read when an event names it.
        deleted_subscriptions, deleted_metrics = await routing_facts.deleted_since(connection, *since)
        for key in deleted_subscriptions:
            router.subscriptions.pop(key, None)
        for metric_id in deleted_metrics:
            router.metrics.pop(metric_id, None)
        customers, subscriptions, metrics = await routing_facts.changed_since(connection, *since)
        for customer in customers:
            if customer.customer_id in router.customers:  # the others are read when an event names them
                router.customers[customer.customer_id] = customer
        for customer_id, limits in (await effective_limits.of_customers_since(connection, *since)).items():
            if (known := router.customers.get(customer_id)) is not None:
                router.customers[customer_id] = replace(known, limits=Limits(limits, known.limits))
        for subscription in subscriptions:
            key = subscription.customer_id, subscription.subscription_id
            if key in router.subscriptions:
                router.subscriptions[key] = subscription
        # Only known ones: an event that names another has to read it, which cancels its deletion.
        for metric in metrics:
            if metric.metric_id in router.metrics:
                router.metrics[metric.metric_id] = metric
        if current.raw_metrics is not None:
            raw_metrics = {name: one for name, one in current.raw_metrics.items() if name not in deleted_metrics}
            raw_metrics.update((metric.metric_id, metric) for metric in metrics)
            router.know_raw_metrics(raw_metrics.values())
        # Exclusions are made without a new epoch. But the evaluation counts a gauge as watched without a gap only if
        # every router knows, from the next epoch on, all exclusions that were made before it.
        for excluded in await exclusions.made_since(connection, *since):
            router.exclude(*excluded)


@dataclass(frozen=True, slots=True)
class _Loading:
    """Reads facts into a router, and registers what does not exist.

    What another transaction registers at the same time is waited for, and then read.
    """

    connection: DriverConnection
    organization_id: int
    router: Router
    now: datetime
    registered: Registered

    async def customers(self, ids: set[str]) -> None:
        missing = await self._read_customers(ids)
        if missing:
            made = await routing_facts.register_customers(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            self.registered.customers.update(customer.customer_id for customer in made)
            self.router.customers.update((customer.customer_id, customer) for customer in made)
            await self._read_customers(missing - self.registered.customers)

    async def _read_customers(self, ids: set[str]) -> set[str]:
        """Reads customers; returns the ids of those that do not exist."""
        if ids:
            for customer in await routing_facts.customers(self.connection, self.organization_id, ids):
                self.router.customers[customer.customer_id] = customer
        return ids - self.router.customers.keys()

    async def subscriptions(self, keys: set[tuple[str, str]]) -> None:
        missing = await self._read_subscriptions(keys)
        if missing:
            made = await routing_facts.register_subscriptions(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            for one in made:
                self.registered.subscriptions.add((one.customer_id, one.subscription_id))
                self.router.subscriptions[one.customer_id, one.subscription_id] = one
            await self._read_subscriptions(missing - self.registered.subscriptions)

    async def _read_subscriptions(self, keys: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Reads subscriptions; returns the keys of those that do not exist."""
        if keys:
            found = await routing_facts.subscriptions(self.connection, self.organization_id, sorted(keys))
            if deleting := [(one.customer_id, one.subscription_id) for one in found if one.deleting]:
                self.registered.subscriptions.update(deleting)  # so that a rollback makes the next event do it again
                await routing_facts.cancel_deletions(
                    self.connection, self.organization_id, FactKind.SUBSCRIPTION.value, deleting
                )
            for one in found:
                self.router.subscriptions[one.customer_id, one.subscription_id] = one
        return keys - self.router.subscriptions.keys()

    async def metrics(self, ids: set[str]) -> None:
        missing = await self._read_metrics(ids)
        if missing:
            made = await routing_facts.register_metrics(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            for metric in made:
                self.registered.metrics.add(metric.metric_id)
                self.router.metrics[metric.metric_id] = metric
            await self._read_metrics(missing - self.registered.metrics)

    async def raw_metrics(self) -> None:
        self.router.know_raw_metrics(await routing_facts.raw_metrics(self.connection, self.organization_id))

    async def _read_metrics(self, ids: set[str]) -> set[str]:
        """Reads metrics; returns the ids of those that do not exist."""
        if ids:
            found = await routing_facts.metrics(self.connection, self.organization_id, ids)
            if deleting := [metric.metric_id for metric in found if metric.deleting]:
                self.registered.metrics.update(deleting)
                await routing_facts.cancel_deletions(
                    self.connection, self.organization_id, FactKind.METRIC.value, [("", one) for one in deleting]
                )
            for metric in found:
                self.router.metrics[metric.metric_id] = metric
        return ids - self.router.metrics.keys()


def _remove(router: Router, registered: Registered) -> None:
    """Removes from a router what a transaction has registered."""
    for customer_id in registered.customers:
        router.customers.pop(customer_id, None)
    for key in registered.subscriptions:
        router.subscriptions.pop(key, None)
    for metric_id in registered.metrics:
        router.metrics.pop(metric_id, None)
