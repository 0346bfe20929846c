"""Loading: the facts that events need are read into a router; what events name for the first time is registered.

What another transaction registers at the same time is waited for, and then read.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from evaluator.events import UsageEvent
from evaluator.known_customers import KnownCustomer
from evaluator.routing import Router
from evaluator.routing_facts import MOST_LEVELS, MetricFacts
from store.accounts.deletions import FactKind
from store.alerts import active_rules
from store.identity import node_epochs
from store.postgres.database import DriverConnection
from store.rules import routing_facts

# Commits that name a customer between two times that the gauges of its past periods are forgotten.
COMMITS_BETWEEN = 256


class Naming(Protocol):
    """What an event and usage that is asked for name. metric_id: empty in a raw event."""

    @property
    def customer_id(self) -> str:
        """Of the usage."""

    @property
    def subscription_id(self) -> str | None:
        """None: the customer's own."""

    @property
    def metric_id(self) -> str:
        """Of the usage."""


@dataclass(eq=False)
class Registered:
    """What one transaction registered implicitly: customers, subscriptions (customer id, id) and metrics, by id.

    Also those subscriptions whose deletion it cancelled. named: the customers that its events name. above: those that
    stand above them. Its router must not forget these meanwhile.
    """

    customers: set[str] = field(default_factory=set)
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    above: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything was registered."""
        return bool(self.customers or self.subscriptions or self.metrics)

    def forget_in(self, router: Router) -> None:
        """Removes from a router what was registered."""
        for customer_id in self.customers:
            router.known.pop(customer_id, None)
        for customer_id, subscription_id in self.subscriptions:
            if (known := router.known.get(customer_id)) is not None:
                known.forget_subscription(subscription_id)
        for metric_id in self.metrics:
            for customer_id in self.named:
                if (known := router.known.get(customer_id)) is not None:
                    known.forget_metric(metric_id)


@dataclass(frozen=True, slots=True)
class Loading:
    """Reads facts of one organization into a router, within a transaction.

    registered: gets each new name before the router does. in_parts: not all nodes of a cluster are known to show the
    router's epoch, so those of the customers that are read have to.
    """

    connection: DriverConnection
    organization_id: int
    router: Router
    now: datetime
    registered: Registered
    in_parts: bool = False

    async def load(self, events: Sequence[Naming]) -> None:
        """Reads the customers, subscriptions and metrics of the events that the router lacks; registers unknown ones.

        In this order and sorted, in every transaction: two that register the same names wait, and never deadlock.
        """
        known, metrics = self.router.known, self.router.metrics
        self.registered.named.update({event.customer_id for event in events})
        await self._customers()
        subscriptions = {
            (event.customer_id, event.subscription_id)
            for event in events
            if event.subscription_id is not None
            and event.subscription_id not in known[event.customer_id].subscriptions
        }
        missing = {name for name in {event.metric_id for event in events} if _is_uncertain(metrics.get(name))}
        if subscriptions:
            await self._require_shown({customer_id for customer_id, _ in subscriptions})
            await self._subscriptions(subscriptions)
        raw = "" in missing  # a raw event has no metric
        missing.discard("")
        if missing:
            await self._metrics(missing)
        if raw and self.router.raw_metrics is None:
            self.router.know_raw_metrics(await routing_facts.raw_metrics(self.connection, self.organization_id))

    async def _customers(self) -> None:
        """The customers that the events name, and all that stand above them."""
        level = await self._current(self.registered.named)
        for _ in range(1, MOST_LEVELS):
            if not level:
                return
            self.registered.above |= level
            level = await self._current(level)

    async def _current(self, ids: set[str]) -> set[str]:
        """Reads those customers that the router does not know, and what may have changed of the others.

        Returns those directly above them.
        """
        known = self.router.known
        missing, above = set[str](), set[str]()
        changed: list[KnownCustomer] = []
        for customer_id in ids:
            one = known.get(customer_id)
            if one is None:
                missing.add(customer_id)
                continue
            one.named += 1
            if not one.named % COMMITS_BETWEEN:
                one.forget_past_periods()
            if one.stale:
                changed.append(one)
            elif (parent := one.parent) is not None:
                above.add(parent)
        read = {*missing, *(one.facts.customer_id for one in changed)}
        await self._require_shown(read)
        if changed:
            await self._changed(changed, missing)
        if missing:
            await self._missing(missing)
        above |= {parent for one in read if (parent := known[one].parent) is not None}
        return above

    async def _require_shown(self, customer_ids: Collection[str]) -> None:
        """Raises DatabaseUnavailable if the facts of these customers may be read as they were before."""
        if self.in_parts and customer_ids:
            await node_epochs.require_shown_of(self.connection, self.organization_id, self.router.epoch, customer_ids)

    async def _changed(self, changed: list[KnownCustomer], missing: set[str]) -> None:
        """Reads again what may have changed of customers. Adds to `missing` those that do not exist any more."""
        outdated = [one.facts.customer_id for one in changed if one.outdated]
        if outdated:
            found = await routing_facts.customers(self.connection, self.organization_id, outdated, with_alerts=False)
            for facts in found:
                self.router.replace_facts(facts)
            gone = set(outdated).difference(facts.customer_id for facts in found)
            for customer_id in gone:
                del self.router.known[customer_id]
            missing |= gone
        ids = {alert_id for one in changed for alert_id in one.changed_alerts}
        if ids:
            rules = await active_rules.rules_with_ids(self.connection, self.organization_id, ids)
            for one in changed:
                for alert_id in one.changed_alerts:
                    one.replace_alert(alert_id, rules.get(alert_id))
        for one in changed:
            one.is_current()

    async def _missing(self, ids: set[str]) -> None:
        missing = await self._read_customers(ids)
        if missing:
            made = await routing_facts.register_customers(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            self.registered.customers.update(customer.customer_id for customer in made)
            for customer in made:
                self.router.know_customer(customer)
            await self._read_customers(missing - self.registered.customers)

    async def _read_customers(self, ids: set[str]) -> set[str]:
        """Reads customers; returns the ids of those that do not exist."""
        if ids:
            for customer in await routing_facts.customers(self.connection, self.organization_id, ids):
                # Where customers have several writers, another one can have read it meanwhile, and may be using it.
                if customer.customer_id not in self.router.known:
                    self.router.know_customer(customer)
        return ids - self.router.known.keys()

    async def _subscriptions(self, keys: set[tuple[str, str]]) -> None:
        missing = await self._read_subscriptions(keys)
        if missing:
            made = await routing_facts.register_subscriptions(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            for one in made:
                self.registered.subscriptions.add((one.customer_id, one.subscription_id))
                self.router.know_subscription(one)
            await self._read_subscriptions(missing - self.registered.subscriptions)

    async def _read_subscriptions(self, keys: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Reads subscriptions; returns the keys of those that do not exist."""
        if not keys:
            return set()
        found = await routing_facts.subscriptions(self.connection, self.organization_id, sorted(keys))
        if deleting := [(one.customer_id, one.subscription_id) for one in found if one.deleting]:
            self.registered.subscriptions.update(deleting)  # so that a rollback makes the next event do it again
            await routing_facts.cancel_deletions(
                self.connection, self.organization_id, FactKind.SUBSCRIPTION.value, deleting
            )
        for one in found:
            self.router.know_subscription(one)
        return keys - {(one.customer_id, one.subscription_id) for one in found}

    async def _metrics(self, ids: set[str]) -> None:
        """Reads metrics; registers those that do not exist.

        A metric is of all customers, so other commits share what the router knows of it. Until this transaction is
        committed, they must not rely on what it registers: each registers the metric itself, and waits. So the router
        does not get it; a metric that the router does not know counts like a new one.
        """
        missing = await self._read_metrics(ids)
        if missing:
            made = await routing_facts.register_metrics(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            self.registered.metrics.update(made)
            await self._read_metrics(missing - self.registered.metrics)

    async def _read_metrics(self, ids: set[str]) -> set[str]:
        """Reads metrics; returns the ids of those that do not exist.

        Cancels deletions. The router notes such a metric as `deleting` until it is read again, so that each commit
        cancels the deletion itself, also if this one is rolled back.
        """
        if ids:
            found = await routing_facts.metrics(self.connection, self.organization_id, ids)
            if deleting := [metric.metric_id for metric in found if metric.deleting]:
                await routing_facts.cancel_deletions(
                    self.connection, self.organization_id, FactKind.METRIC.value, [("", one) for one in deleting]
                )
            for metric in found:
                self.router.metrics[metric.metric_id] = metric
        return ids - self.router.metrics.keys()


def is_known(router: Router, events: Sequence[UsageEvent]) -> bool:
    """Whether no event is raw and the router knows all that routes them."""
    return all(event.event_name is None for event in events) and knows(router, events)


def knows(router: Router, events: Iterable[Naming]) -> bool:
    """Whether the router knows all that events name, and what stands above their customers.

    `Loading.load` would read nothing.
    """
    known, metrics = router.known, router.metrics
    for event in events:
        customer = known.get(event.customer_id)
        if customer is None or customer.stale:
            return False
        if _is_uncertain(metrics.get(event.metric_id)) and (event.metric_id or router.raw_metrics is None):
            return False
        if customer.parent is not None and not router.knows_above(customer):
            return False
        if event.subscription_id is not None and event.subscription_id not in customer.subscriptions:
            return False
    return True


def _is_uncertain(metric: MetricFacts | None) -> bool:
    """Whether a commit has to read a metric itself: the router does not know it, or knew it while it was deleted."""
    return metric is None or metric.deleting
