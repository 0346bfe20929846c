"""Reading: the facts that a check needs are read into a router; nothing is registered, and nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.rules.loading import Loading
from evaluator.enforcement.usage import Usage
from store.rules import routing_facts, unregistered


@dataclass(frozen=True, slots=True)
class Reading(Loading):
    """Like `Loading`, without alerts, and for transactions that can only read.

    Customers that do not exist are known as if they had just been registered, and are among the registered ones.
    Subscriptions and metrics that do not exist stay unknown.
    """

    async def read(self, usages: Sequence[Usage]) -> None:
        """Reads the customers, subscriptions and metrics of usage that the router lacks."""
        known, metrics = self.router.known, self.router.metrics
        self.registered.named.update([usage.customer_id for usage in usages])
        await self._customers()
        subscriptions = {
            (usage.customer_id, usage.subscription_id)
            for usage in usages
            if usage.subscription_id is not None
            and usage.subscription_id not in known[usage.customer_id].subscriptions
        }
        if subscriptions:
            await self._require_shown({customer_id for customer_id, _ in subscriptions})
            await self._read_subscriptions(subscriptions)
        if missing := {usage.metric_id for usage in usages} - metrics.keys():
            await self._read_metrics(missing)

    async def _missing(self, ids: set[str]) -> None:
        for customer in await routing_facts.customers(self.connection, self.organization_id, ids, with_alerts=False):
            self.router.know_customer(customer)
        if missing := ids - self.router.known.keys():
            self.registered.customers.update(missing)
            for customer in await unregistered.as_if_registered(
                self.connection, self.organization_id, missing, self.router.epoch, self.now
            ):
                self.router.know_customer(customer)

    async def _read_subscriptions(self, keys: set[tuple[str, str]]) -> set[tuple[str, str]]:
        found = await routing_facts.subscriptions(self.connection, self.organization_id, sorted(keys))
        for one in found:
            self.router.know_subscription(one)
        return keys - {(one.customer_id, one.subscription_id) for one in found}

    async def _read_metrics(self, ids: set[str]) -> set[str]:
        for metric in await routing_facts.metrics(self.connection, self.organization_id, ids):
            self.router.metrics[metric.metric_id] = metric
        return ids - self.router.metrics.keys()
