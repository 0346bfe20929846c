"""The gauges of facts: locked, and evaluated on what they read now; a reading replaces the value of its gauge."""

from collections.abc import Sequence

from engine.evaluation.evaluation import evaluate_gauges
from engine.evaluation.subjects import Movement, Subject
from engine.facts.readings import Covered, GaugeReading, read_all
from engine.rules.transaction import Transaction
from evaluator.aggregation import Tally
from evaluator.balance_values import reads_as_zero
from evaluator.limits import limit_of
from store.usage import gauges
from store.usage.gauges import NEVER_EVALUATED


async def evaluate_readings(
    transaction: Transaction,
    read: Sequence[GaugeReading],
    *,
    backfilled: bool = False,
    reset_alert: str | None = None,
) -> None:
    """Locks the gauges, evaluates them and writes what it finds.

    backfilled: an alert is new or changed, and its readings may be older than it. reset_alert: the id of the alert
    whose state is forgotten first. The router has to know the limits of plans.
    """
    if not read:
        return
    watched = [item.watch.gauge for item in read]
    locked = await gauges.lock(transaction.driver, transaction.organization_id, watched, transaction.now)
    subjects, slices = [], transaction.slices()
    for item in read:
        await slices.pause()
        gauge = item.watch.gauge
        stored = locked[gauge.gauge_id]
        last = None if stored.rules_epoch == NEVER_EVALUATED else stored.value
        if any(rule.has_percentages for rule in item.watch.alerts):
            limits = transaction.router.limits_of(item.customer, item.customer.plan_id)
            item.watch.limit = limit_of(limits, gauge.measure.unit, gauge.group)
        subjects.append(
            Subject(
                Movement(item.watch),
                stored.rules_epoch,
                Tally(stored.value, stored.latest_event_time, stored.latest_event_id),
                scale=stored.scale,
                reading=item.reading.after(last),
                cause=item.cause,
                epoch=item.epoch,
                backfilled=backfilled,
                reset_alert=reset_alert,
            )
        )
    await evaluate_gauges(transaction, subjects)


async def evaluate_new_customers(transaction: Transaction, customer_ids: Sequence[str]) -> None:
    """Evaluates customers that usage has just registered, on the gauges that read 0 without any balance."""
    covered = []
    for customer_id in customer_ids:
        customer = transaction.router.customer(customer_id)
        rules = [rule for rule in transaction.router.fact_rules(customer) if rule.measure.balances is not None]
        if any(reads_as_zero(rule.measure.balances) for rule in rules if rule.measure.balances is not None):
            covered.append(Covered(customer, rules, transaction.now))
    if covered:
        found = await read_all(transaction, covered)
        await evaluate_readings(transaction, found.gauges)
