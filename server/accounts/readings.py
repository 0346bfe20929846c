"""Reading: what alerts on facts measure for one customer, from the facts as they are stored now."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from evaluator.aggregation import Aggregation
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.facts import Touched
from evaluator.gauges import Gauge
from evaluator.invoices import calendar_month, readings
from evaluator.routing import Customer, Router, Watch
from store import invoice_readings
from store.database import Connection


@dataclass(frozen=True)
class Reading:
    """A gauge of facts, the alerts that watch it, and what it reads now."""

    watch: Watch
    value: Decimal


def rules_for(router: Router, customer: Customer) -> list[AlertRule]:
    """The alerts on facts that cover a customer."""
    return [rule for rule in router.fact_rules if rule.scope.covers(customer.customer_id, None, customer.plan_id)]


async def after_change(
    connection: Connection, organization_id: int, router: Router, customer: Customer, touched: Touched
) -> list[Reading]:
    """What the alerts read that a change of the customer's facts may have moved."""
    rules = rules_for(router, customer)
    if not rules or not touched.invoices:
        return []
    zone = customer.cycle.time_zone
    months = {invoice.month(zone) for invoice in touched.invoices}
    of_months = await invoice_readings.ending_in(connection, organization_id, customer.customer_id, list(months))
    found: dict[Gauge, tuple[Decimal, list[AlertRule]]] = {}
    with exact_arithmetic():
        for rule in rules:
            read = readings(rule, customer.customer_id, zone, touched.invoices, of_months)
            for gauge, value in read.items():
                found.setdefault(gauge, (value, []))[1].append(rule)
    return [Reading(_watch(gauge, watching, customer), value) for gauge, (value, watching) in found.items()]


async def for_visit(
    connection: Connection,
    organization_id: int,
    rule: AlertRule,
    customer: Customer,
    now: datetime,
    grace: timedelta,
) -> list[Reading]:
    """What a new alert reads of what existed before it: this month's total, or each invoice not yet out of grace."""
    assert rule.measure.invoices is not None
    zone = customer.cycle.time_zone
    if rule.measure.invoices.monthly:
        periods = [calendar_month(zone, now)]
        existing = await invoice_readings.ending_in(connection, organization_id, customer.customer_id, periods)
    else:
        existing = await invoice_readings.ending_after(connection, organization_id, customer.customer_id, now - grace)
    with exact_arithmetic():
        read = readings(rule, customer.customer_id, zone, existing, existing)
    return [Reading(_watch(gauge, [rule], customer), value) for gauge, value in read.items()]


def _watch(gauge: Gauge, rules: Iterable[AlertRule], customer: Customer) -> Watch:
    rules = tuple(rules)
    required = max(customer.changed_epoch, *(rule.changed_epoch for rule in rules))
    return Watch(gauge, rules, Aggregation.LATEST, None, required, required, customer.changed_time)
