"""Backfills of alerts that name a customer: many of them are evaluated in one transaction."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from engine.backfill.parts import OfGauge
from engine.facts.fact_gauges import evaluate_readings
from engine.facts.one_alert import read_facts
from engine.facts.usage_gauges import evaluate_found, find_gauges
from engine.limits import EVALUATIONS_AT_ONCE
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from store.alerts import backfills
from store.rules import routing_facts


class NamedResult(NamedTuple):
    """The alerts that were evaluated, and one that has too many gauges for a step together with others."""

    evaluated: Sequence[str]
    alone: str | None = None


async def claim_and_evaluate(
    transaction: Transaction,
    first: str,
    size: int,
    others_than: Collection[str],
    max_gauges: int,
    max_evaluations: int = EVALUATIONS_AT_ONCE,
) -> NamedResult:
    """Claims up to `size` backfills of alerts that name a customer, and evaluates those that go together.

    An alert is complete, too, if it is not active any more or its customer does not exist. first: the lowest alert
    id. others_than: alerts that are left out. Alerts on facts and alerts on usage do not go together: each kind locks
    all of its gauges at once, in the order of their keys. Those of the other kind than the first one wait for the
    next step, and so do those that have more than `max_gauges` or about `max_evaluations` together with it.
    """
    organization_id = transaction.organization_id
    named = await backfills.claim_named(transaction.driver, organization_id, first, size, others_than)
    ended = [one.alert_id for one in named if one.evaluated]
    claimed = {one.alert_id: one.customer_id for one in named if not one.evaluated}
    known = {
        one.customer_id: one
        for one in await routing_facts.customers(transaction.driver, organization_id, set(claimed.values()))
    }
    rules = {
        alert_id: known[customer_id].alerts.get(alert_id) if customer_id in known else None
        for alert_id, customer_id in claimed.items()
    }
    together = _alike_in_kind(rules)
    active = [rule for alert_id in together if (rule := rules[alert_id]) is not None]
    customer_ids = list(dict.fromkeys(claimed[rule.alert_id] for rule in active))
    if active and active[0].measure.of_facts:
        read = await read_facts(transaction, active, sorted(customer_ids))
        fitting = _fitting(customer_ids, read.gauges, max_gauges)
        readings = [one for one in read.gauges if one.gauge.customer_id in fitting]
        await evaluate_readings(transaction, readings, backfilled=True)
    else:
        found = await find_gauges(transaction, active, sorted(customer_ids), known=known)
        fitting = _fitting(customer_ids, found, max_gauges)
        gauges = [one for one in found if one.gauge.customer_id in fitting]
        done = await evaluate_found(transaction, gauges, max_evaluations=max_evaluations)
        fitting.difference_update(one.gauge.customer_id for one in gauges[done:])
    complete = [alert_id for alert_id in together if rules[alert_id] is None or claimed[alert_id] in fitting]
    if backfills.may_complete(transaction.driver):
        ended += complete
    elif complete:
        await backfills.reach_end(transaction.driver, organization_id, complete)
    await backfills.complete(transaction.driver, organization_id, ended)
    return NamedResult(complete or ended, None if complete or ended or not together else together[0])


def _fitting(customer_ids: Sequence[str], found: Sequence[OfGauge], max_gauges: int) -> set[str]:
    """The first of the customers that have together at most so many gauges."""
    numbers = Counter(one.gauge.customer_id for one in found)
    fitting, total = set[str](), 0
    for customer_id in customer_ids:
        total += numbers[customer_id]
        if total > max_gauges:
            break
        fitting.add(customer_id)
    return fitting


def _alike_in_kind(rules: Mapping[str, AlertRule | None]) -> list[str]:
    """The alerts that measure facts, or usage, as the first one does; and those that are not active any more."""
    kinds = {alert_id: rule.measure.of_facts for alert_id, rule in rules.items() if rule is not None}
    first = next(iter(kinds.values()), None)
    return [alert_id for alert_id in rules if kinds.get(alert_id, first) == first]
