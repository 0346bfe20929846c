"""Preparing: the facts of a commit at a node of a cluster are read into a router before, at the coordinator.

What does not exist becomes known as the commit will register it. Metrics lie at the coordinator, and are registered
at once.
"""

from dataclasses import dataclass, field
from datetime import datetime

from engine.rules.loading import Loading, Registered
from evaluator.routing_facts import MetricFacts, SubscriptionFacts
from store.rules import routing_facts, unregistered


class NotAtNode(Exception):
    """Usage names what a commit at a node cannot register or keep: the coordinator has to commit it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a commit at a node has to register. epoch: of the organization, at which that is right.

    registered: as of `OrganizationRules.begin`. now: the time that the rows get.
    """

    registered: Registered
    epoch: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Preparing(Loading):
    """Like `Loading`, for usage that a later transaction stores at the node of its customers.

    registered: gets what that transaction has to register. made: metrics that this transaction has registered; the
    router may know them when it is committed. Raises NotAtNode.
    """

    made: dict[str, MetricFacts] = field(default_factory=dict)

    async def _missing(self, ids: set[str]) -> None:
        missing = await self._read_customers(ids)
        if not missing:
            return
        if not missing <= self.registered.named:
            raise NotAtNode  # one that stands above another customer can lie at another node
        self.registered.customers.update(missing)
        for customer in await unregistered.as_registered(
            self.connection, self.organization_id, missing, self.router.epoch, self.now
        ):
            if customer.customer_id not in self.router.known:
                self.router.know_customer(customer)

    async def _subscriptions(self, keys: set[tuple[str, str]]) -> None:
        missing = await self._read_subscriptions(keys)
        self.registered.subscriptions.update(missing)
        for customer_id, subscription_id in missing:
            one = SubscriptionFacts(customer_id, subscription_id, None, None, None, self.router.epoch, self.now)
            self.router.know_subscription(one)

    async def _read_subscriptions(self, keys: set[tuple[str, str]]) -> set[tuple[str, str]]:
        found = await routing_facts.subscriptions(self.connection, self.organization_id, sorted(keys))
        if any(one.deleting for one in found):
            raise NotAtNode
        for one in found:
            self.router.know_subscription(one)
        return keys - {(one.customer_id, one.subscription_id) for one in found}

    async def _metrics(self, ids: set[str]) -> None:
        missing = await self._read_metrics(ids)
        if missing:
            await routing_facts.register_metrics(
                self.connection, self.organization_id, sorted(missing), self.router.epoch, self.now
            )
            found = await routing_facts.metrics(self.connection, self.organization_id, missing)
            if any(metric.deleting for metric in found):
                raise NotAtNode
            self.made.update({metric.metric_id: metric for metric in found})

    async def _read_metrics(self, ids: set[str]) -> set[str]:
        found = await routing_facts.metrics(self.connection, self.organization_id, ids)
        if any(metric.deleting for metric in found):
            raise NotAtNode
        for metric in found:
            self.router.metrics[metric.metric_id] = metric
        return ids - {metric.metric_id for metric in found}
