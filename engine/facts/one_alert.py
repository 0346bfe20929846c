"""One alert, evaluated for given customers on the gauges that they have now, without new usage."""

from collections.abc import Sequence

from engine.facts.due_timers import catch_up
from engine.facts.fact_gauges import evaluate_readings
from engine.facts.readings import Covered, FactReadings, read_all
from engine.facts.usage_gauges import evaluate_found, find_gauges
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from store.balances import wallet_timers, wallets
from store.rules import routing_facts


async def evaluate_alert(
    transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str], *, reset: bool = False
) -> None:
    """Evaluates an alert for those of the customers that it covers, on the gauges of their current periods.

    Gauges that were last evaluated under the rules and facts of now are left out, unless the alert forgets its state
    first (`reset`). The router must not be that of ingest: customers are read into it here, as the
    transaction sees them.
    """
    reset_alert = rule.alert_id if reset else None
    if rule.measure.of_facts:
        read = await read_facts(transaction, [rule], customer_ids)
        await evaluate_readings(transaction, read.gauges, backfilled=True, reset_alert=reset_alert)
    else:
        found = await find_gauges(transaction, [rule], customer_ids, all_gauges=reset)
        await evaluate_found(transaction, found, reset_alert=reset_alert)


async def read_facts(
    transaction: Transaction, rules: Sequence[AlertRule], customer_ids: Sequence[str]
) -> FactReadings:
    """What alerts on facts read now of those customers that they cover; holds the customers' wallets from now on.

    Sets the timers of these customers.
    """
    connection, organization_id = transaction.connection, transaction.organization_id
    # The facts must not change between their reading and the lock of their gauges.
    held = await wallets.lock(connection, organization_id, customer_ids)
    found = await routing_facts.customers(transaction.driver, organization_id, customer_ids)
    wallet_of = {customer: held[customer.customer_id] for customer in found}
    timed = any(rule.measure.invoices is None for rule in rules)  # totals of invoices do not change with time
    if timed:
        await catch_up(transaction, wallet_of)
    covered, slices = [], transaction.slices()
    for customer, wallet in wallet_of.items():
        await slices.pause()
        measures = {rule.measure for rule in rules if rule.scope.covers(customer.customer_id, None, customer.plan_id)}
        if measures:
            # All alerts that watch the same gauges.
            alike = [one for one in transaction.router.fact_rules(customer) if one.measure in measures]
            covered.append(Covered(customer, alike, wallet.moment(transaction.now)))
    read = await read_all(transaction, covered)
    if timed:
        await wallet_timers.set_earlier_timers(connection, organization_id, read.by_wallet(covered))
    return read
