"""The registry of rules: what this process has cached of each organization. There is one in a process."""

from collections import OrderedDict
from collections.abc import Callable

from engine.rules.monitoring import RulesMonitoring
from engine.rules.organization_rules import OrganizationRules
from evaluator.exclusions import MAX_GROUPS

CACHED_ORGANIZATIONS = 10_000


class RulesRegistry:
    """The cached rules of the organizations that were used last, for all tasks of one event loop.

    limit: organizations. The one that was unused for longest is dropped for a new one. A transaction that still works
    with dropped rules ends with them; the next one reads the rules again. max_groups: the group limit of every alert.
    with_alerts: see `OrganizationRules`.
    """

    def __init__(
        self,
        limit: int = CACHED_ORGANIZATIONS,
        *,
        max_groups: int = MAX_GROUPS,
        with_alerts: bool = True,
        monitoring: RulesMonitoring | None = None,
        shown_epoch: Callable[[int], int] | None = None,
    ) -> None:
        """shown_epoch: of an organization, one that all nodes of a cluster show; None on one PostgreSQL."""
        self.max_groups = max_groups
        self._limit = limit
        self._with_alerts = with_alerts
        self._shown_epoch = shown_epoch
        self._organizations: OrderedDict[int, OrganizationRules] = OrderedDict()
        self._monitoring = monitoring or RulesMonitoring()
        self._monitoring.add_cached(
            lambda: len(self._organizations),
            lambda: sum(len(rules.cached.known) for rules in self._organizations.values()),
            lambda: sum(len(rules.cached.wide) for rules in self._organizations.values()),
        )

    def of(self, organization_id: int) -> OrganizationRules:
        """The rules of an organization."""
        rules = self._organizations.get(organization_id)
        if rules is None:
            rules = self._organizations[organization_id] = OrganizationRules(
                organization_id,
                with_alerts=self._with_alerts,
                monitoring=self._monitoring,
                shown_epoch=self._shown_epoch,
            )
            if len(self._organizations) > self._limit:
                self._organizations.popitem(last=False)
        else:
            self._organizations.move_to_end(organization_id)
        return rules
