"""Alarms as entries of the list of alerts for many customers: with their alerts, present values and limits."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from evaluator.alerts import AlertRule
from evaluator.gauges import EVER, Gauge
from evaluator.invoices import current_period
from runtime.turns import Slices
from store.accounts import customers, subscriptions
from store.accounts.customers import StoredCustomer
from store.accounts.subscriptions import StoredSubscription
from store.alerts import alerts
from store.limits import effective_limits
from store.postgres.database import Connection, driver
from store.views import fact_views
from store.views.alarm_candidates import Position
from store.views.alarms import Alarm
from store.views.customer_alerts import CustomerAlert, GaugeState
from store.views.held_of_gauges import with_held


class Cursor(NamedTuple):
    """The position of an entry: of an alarm its `Position`, of the others customer and age of the alert."""

    is_other: bool  # not in alarm
    time: datetime  # of an alarm its last change, of the others the creation of the alert
    customer_id: str
    gauge_id: UUID | None
    alert_id: str


class ListedAlert(NamedTuple):
    """An alert for a customer, and the position of the entry in the list."""

    cursor: Cursor
    found: CustomerAlert


def alarm_cursor(position: Position) -> Cursor:
    """The position of an alarm in the list."""
    return Cursor(False, position.change_time, position.customer_id, position.gauge_id, position.alert_id)


async def entries_of(
    connection: Connection, organization_id: int, found: Sequence[Alarm], now: datetime
) -> list[ListedAlert]:
    """The alarms as entries, without those of a billing period that is not the customer's any more."""
    if not found:
        return []
    definitions = await alerts.get_many(connection, organization_id, {one.position.alert_id for one in found})
    customer_of = await customers.get_many(connection, organization_id, {one.position.customer_id for one in found})
    keys = {
        (one.position.customer_id, one.stored.gauge.subscription_id)
        for one in found
        if one.stored.gauge.subscription_id is not None
    }
    subscription_of = await subscriptions.get_many(connection, organization_id, keys) if keys else {}
    values = _Values(connection, organization_id, now)
    entries, slices = list[ListedAlert](), Slices(organization_id)
    for one in found:
        await slices.pause()
        definition = definitions.get(one.position.alert_id)
        customer = customer_of.get(one.position.customer_id)
        gauge = one.stored.gauge
        subscription = subscription_of.get((gauge.customer_id, gauge.subscription_id or ""))
        rule = None if definition is None else definition.active_rule()
        if definition is None or rule is None or customer is None:
            continue
        if not _current(rule, gauge, customer, subscription, now):
            continue
        shown = GaugeState(
            gauge,
            await values.value(rule, one, customer),
            *one.state,
            limit=await values.limit(rule, gauge, customer, subscription),
        )
        alert_found = CustomerAlert(definition, customer.customer_id, (shown,), no_data=False)
        entries.append(ListedAlert(alarm_cursor(one.position), alert_found))
    with_amounts = await with_held(connection, organization_id, [one.found for one in entries])
    return [ListedAlert(one.cursor, alert) for one, alert in zip(entries, with_amounts, strict=True)]


def _current(
    rule: AlertRule, gauge: Gauge, customer: StoredCustomer, subscription: StoredSubscription | None, now: datetime
) -> bool:
    """Whether the gauge is of the current period; after an anchor moved, gauges of the old periods remain."""
    if not rule.selects(gauge.group):
        return False
    if gauge.subscription_id is not None:
        return subscription is not None and gauge.period == (subscription.cycle or customer.cycle).period_at(now)
    if rule.measure.invoices is not None:
        return gauge.period == current_period(rule.measure.invoices, customer.cycle.time_zone, now)
    return gauge.period == (EVER if rule.measure.of_facts else customer.cycle.period_at(now))


class _Values:
    """The values and limits of gauges; those that follow from facts of a customer are computed once."""

    def __init__(self, connection: Connection, organization_id: int, now: datetime) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._now = now
        self._views: dict[tuple[str, str], fact_views.FactView] = {}

    async def value(self, rule: AlertRule, alarm: Alarm, customer: StoredCustomer) -> Decimal | None:
        """The value now. The values of balances and days change with time alone, so they are computed."""
        if not rule.measure.of_facts or rule.measure.invoices is not None:
            return alarm.stored.value
        key = customer.customer_id, rule.alert_id
        if key not in self._views:
            self._views[key] = (
                await fact_views.read(
                    self._connection,
                    self._organization_id,
                    customer.customer_id,
                    customer.plan_end_time,
                    [rule],
                    self._now,
                )
            )[rule.alert_id]
        view, gauge = self._views[key], alarm.stored.gauge
        return view.values.get(gauge, view.others.get(gauge))

    async def limit(
        self, rule: AlertRule, gauge: Gauge, customer: StoredCustomer, subscription: StoredSubscription | None
    ) -> Decimal | None:
        """The limit of the gauge, where the alert has percentage thresholds."""
        if not rule.has_percentages:
            return None
        plan_ids: dict[str | None, str | None] = {None: customer.plan_id}
        if subscription is not None:
            plan_ids[subscription.subscription_id] = subscription.plan_id
        raw = await driver(self._connection)
        find = await effective_limits.finder(raw, self._organization_id, customer.customer_id, plan_ids)
        return find(gauge)
