"""Which owners of gauges an alert covers: a customer, or some of its subscriptions, each with its current period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from evaluator.alerts import AlertRule, ScopeKind
from evaluator.definitions import AlertDefinition
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import EVER
from evaluator.invoices import current_period
from store.accounts.customers import StoredCustomer
from store.accounts.subscriptions import StoredSubscription
from store.views.customer_alerts import GaugeSelection
from store.views.gauge_windows import Owner


@dataclass(frozen=True, slots=True)
class Owners:
    """A customer and its subscriptions at one time."""

    customer: StoredCustomer
    subscriptions: Sequence[StoredSubscription]
    now: datetime

    def covers(self, definition: AlertDefinition) -> bool:
        """Whether an alert is on the customer, or on any of its subscriptions."""
        # The alert of a subscription can exist before its subscription.
        named = definition.scope.kind is ScopeKind.SUBSCRIPTION and (
            definition.scope.customer_id == self.customer.customer_id
        )
        return named or bool(self.covered_by(definition.to_rule()))

    def covered_by(self, rule: AlertRule) -> list[Owner]:
        """The customer, or those of its subscriptions, that the alert covers."""
        customer = self.customer
        if not rule.measure.per_subscription:
            if not rule.scope.covers(customer.customer_id, None, customer.plan_id):
                return []
            if rule.measure.invoices is not None:
                return [Owner(None, current_period(rule.measure.invoices, customer.cycle.time_zone, self.now))]
            if rule.measure.of_facts:
                return [Owner(None, EVER)]
            return [Owner(None, customer.cycle.period_at(self.now))]
        return [
            Owner(item.subscription_id, (item.cycle or customer.cycle).period_at(self.now))
            for item in self.subscriptions
            if rule.scope.covers(customer.customer_id, item.subscription_id, item.plan_id)
        ]

    def disabled(
        self,
        rule: AlertRule,
        reasons: Mapping[tuple[str, str | None], ExclusionReason],
        selection: GaugeSelection,
    ) -> ExclusionReason | None:
        """Why an alert is disabled for the whole customer, or for every selected subscription that it covers."""
        whole = reasons.get((rule.alert_id, None))
        if whole is not None:
            return whole
        each = [
            reasons.get((rule.alert_id, owner.subscription_id))
            for owner in self.covered_by(rule)
            if selection.subscription_id in (None, owner.subscription_id)
        ]
        return each[0] if each and None not in each else None
