"""The rules of one organization as this process knows them: valid exactly while the organization's epoch stands."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from evaluator.alerts import AlertRule
from evaluator.events import UsageEvent
from evaluator.limits import Limits
from evaluator.routing import Router
from runtime.turns import Slices
from store.alerts import alerts, exclusions
from store.limits import effective as limit_facts
from store.postgres.database import Connection, driver
from store.usage import routing_facts as facts

# Beyond this many customers a router starts afresh and reads again those it meets. Memory stays bounded, and a
# router of this size is well past the point where it pays.
MAX_CUSTOMERS = 200_000


@dataclass(frozen=True)
class Created:
    """Whom a transaction created because nobody had registered them; the customers by id, and so on."""

    customers: set[str] = field(default_factory=set)
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything was created."""
        return bool(self.customers or self.subscriptions or self.metrics)


class Rules:
    """Hands out the router of one organization, reloading only what changed."""

    def __init__(self, organization_id: int) -> None:
        self._organization_id = organization_id
        self._router = Router(-1, ())
        self._rules: dict[str, AlertRule] = {}
        # What transactions that are still open have created: a router that is made meanwhile does not take it over.
        self._open: list[Created] = []

    async def router(self, connection: Connection, epoch: int) -> Router:
        """The router at `epoch`, which the transaction has to hold still (`organizations.lock_shared`).

        Others may hold older routers at the same time; those stay as they are.
        """
        current = self._router
        if current.epoch == epoch and len(current.customers) <= MAX_CUSTOMERS:
            return current
        rules = dict(self._rules)
        slices = Slices(self._organization_id)
        for definition in await alerts.changed_since(connection, self._organization_id, current.epoch):
            await slices.pause()
            rule = definition.active_rule()
            if rule is None:
                rules.pop(definition.alert_id, None)
            else:
                rules[rule.alert_id] = rule
        raw = await driver(connection)
        plan_limits = dict(current.plan_limits)
        for plan_id, limits in (await limit_facts.of_plans_since(raw, self._organization_id, current.epoch)).items():
            plan_limits[plan_id] = Limits(limits, plan_limits.get(plan_id))
        router = Router(epoch, rules.values(), plan_limits)
        # A router that knows nobody yet has nothing to bring up to date; all that ever changed would be every row.
        if current.customers and len(current.customers) <= MAX_CUSTOMERS:
            router.customers.update(current.customers)
            router.subscriptions.update(current.subscriptions)
            router.metrics.update(current.metrics)
            for created in self._open:
                _remove(router, created)
            changed = await facts.changed_since(raw, self._organization_id, current.epoch)
            for customer in changed[0]:
                # Those that nobody met yet are read when somebody does.
                if customer.customer_id in router.customers:
                    router.customers[customer.customer_id] = customer
            own_limits = await limit_facts.of_customers_since(raw, self._organization_id, current.epoch)
            for customer_id, limits in own_limits.items():
                if (known := router.customers.get(customer_id)) is not None:
                    router.customers[customer_id] = replace(known, limits=Limits(limits, known.limits))
            for subscription in changed[1]:
                key = subscription.customer_id, subscription.subscription_id
                if key in router.subscriptions:
                    router.subscriptions[key] = subscription
            router.metrics.update((metric.metric_id, metric) for metric in changed[2])
            # They are made while an epoch stands. But alerts that come with a later one count on this: whatever was
            # not watched by everyone before counts as not watched.
            for excluded in await exclusions.made_since(raw, self._organization_id, current.epoch):
                router.exclude(*excluded)
        # Another transaction may have come back with a younger router in the meantime.
        if epoch >= self._router.epoch:
            self._router, self._rules = router, rules
        return router

    def begin(self) -> Created:
        """What a transaction is going to create. `committed` or `rolled_back` has to be called with it at the end."""
        created = Created()
        self._open.append(created)
        return created

    def committed(self, created: Created) -> None:
        """Says that the transaction that created this is committed."""
        self._open = [one for one in self._open if one is not created]

    def rolled_back(self, router: Router | None, created: Created, events: Iterable[UsageEvent]) -> None:
        """Forgets what a transaction created that was rolled back, or may have been, and whatever was derived of it.

        Else the router would know somebody whom the database does not, and nobody would ever create them. All that
        others made is kept: to read the rules of an organization again may take seconds. events: of the transaction.
        router: that it used, unless it failed before it had one.
        """
        self.committed(created)
        if not created:
            return
        events = list(events)
        for one in {id(one): one for one in (router, self._router) if one is not None}.values():
            _remove(one, created)
            one.forget_routes(
                (event.customer_id, event.subscription_id, event.metric_id)
                for event in events
                if event.customer_id in created.customers
                or event.metric_id in created.metrics
                or (event.customer_id, event.subscription_id) in created.subscriptions
            )

    async def meet(
        self, connection: Connection, router: Router, events: Iterable[UsageEvent], now: datetime, created: Created
    ) -> None:
        """Makes the router know everyone the events name, creating whoever nobody registered.

        created: of this transaction, see `begin`; what is created is added to it before the router knows it.
        """
        new_customers = {event.customer_id for event in events if event.customer_id not in router.customers}
        new_metrics = {event.metric_id for event in events if event.metric_id not in router.metrics}
        new_subscriptions = {
            (event.customer_id, event.subscription_id)
            for event in events
            if event.subscription_id is not None
            and (event.customer_id, event.subscription_id) not in router.subscriptions
        }
        if not (new_customers or new_metrics or new_subscriptions):
            return
        raw, organization_id = await driver(connection), self._organization_id
        # In this order and sorted, in every transaction: two that create the same ones wait, never deadlock.
        if new_customers:
            missing = await self._read_customers(connection, router, new_customers)
            if missing:
                made = await facts.register_customers(raw, organization_id, sorted(missing), router.epoch, now)
                created.customers.update(customer.customer_id for customer in made)
                router.customers.update((customer.customer_id, customer) for customer in made)
                await self._read_customers(connection, router, missing - created.customers)
        if new_subscriptions:
            for round_ in range(2):
                for found in await facts.subscriptions(raw, organization_id, sorted(new_subscriptions)):
                    router.subscriptions[found.customer_id, found.subscription_id] = found
                missing_keys = sorted(new_subscriptions - router.subscriptions.keys())
                if round_ == 1 or not missing_keys:
                    break
                for one in await facts.register_subscriptions(raw, organization_id, missing_keys, router.epoch, now):
                    created.subscriptions.add((one.customer_id, one.subscription_id))
                    router.subscriptions[one.customer_id, one.subscription_id] = one
        if new_metrics:
            for round_ in range(2):
                for metric in await facts.metrics(raw, organization_id, new_metrics):
                    router.metrics[metric.metric_id] = metric
                missing = new_metrics - router.metrics.keys()
                if round_ == 1 or not missing:
                    break
                for metric in await facts.register_metrics(raw, organization_id, sorted(missing), router.epoch, now):
                    created.metrics.add(metric.metric_id)
                    router.metrics[metric.metric_id] = metric

    async def _read_customers(self, connection: Connection, router: Router, ids: set[str]) -> set[str]:
        """Reads customers; returns the ids of those that do not exist."""
        if ids:
            for customer in await facts.customers(await driver(connection), self._organization_id, ids):
                router.customers[customer.customer_id] = customer
        return ids - router.customers.keys()


def _remove(router: Router, created: Created) -> None:
    """Makes a router forget whom a transaction has created."""
    for customer_id in created.customers:
        router.customers.pop(customer_id, None)
    for key in created.subscriptions:
        router.subscriptions.pop(key, None)
    for metric_id in created.metrics:
        router.metrics.pop(metric_id, None)
