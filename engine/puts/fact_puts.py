"""The puts of one process that may change what routers read: of customers, subscriptions, limits and metrics."""

from collections.abc import Sequence

from engine.changes.groups import ChangeGroups
from engine.limits import DEFAULT_LIMITS, NewMetricLimits
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.puts.kinds_of_puts import CUSTOMERS, LIMITS, SUBSCRIPTIONS
from engine.puts.limit_deletions import LimitDeletions
from engine.puts.metric_puts import MetricPuts
from engine.puts.puts import PUTS_AT_ONCE, Puts
from engine.puts.together import Together
from engine.rules.registry import RulesRegistry
from runtime.clock import Clock
from store.accounts import known_ids
from store.accounts.known_ids import ReferencedIds
from store.identity.organizations import Organization


class FactPuts:
    """Puts of each kind of facts, and the look-up of ids that they name."""

    def __init__(
        self,
        clock: Clock,
        groups: ChangeGroups,
        evaluations: CustomerEvaluations,
        rules: RulesRegistry,
        new_metrics: NewMetricLimits = DEFAULT_LIMITS.new_metrics,
    ) -> None:
        self.customers = Puts(clock, groups, evaluations, rules, CUSTOMERS)
        self.subscriptions = Puts(clock, groups, evaluations, rules, SUBSCRIPTIONS)
        self.limits = Puts(clock, groups, evaluations, rules, LIMITS)
        self.metrics = MetricPuts(clock, groups, new_metrics.under_the_lock)
        self.limit_deletions = LimitDeletions(groups, evaluations)
        self._groups = groups
        self._unknown = Together[ReferencedIds, ReferencedIds](
            self._find_unknown, lambda ids: ids, PUTS_AT_ONCE, once=True
        )

    async def unknown(self, organization: Organization, ids: ReferencedIds) -> ReferencedIds:
        """Those of the ids that the organization does not know, see `known_ids.unknown`."""
        return await self._unknown.ask(organization, ids)

    async def drain(self) -> None:
        """Waits until nothing is in progress."""
        for one in (self.customers, self.subscriptions, self.limits, self._unknown):
            await one.drain()

    async def _find_unknown(
        self, organization: Organization, asked: Sequence[ReferencedIds]
    ) -> Sequence[ReferencedIds]:
        async with self._groups.transaction(organization.organization_id) as connection:
            found = await known_ids.unknown_of_each(connection, organization.organization_id, asked)
        return [found[ids] for ids in asked]
