"""One alert, evaluated for given customers on the gauges that they have now, without new usage."""

from collections.abc import Sequence

from engine.evaluation.evaluation import evaluate_gauges
from engine.evaluation.subjects import Movement, before_fold
from engine.facts.due_timers import catch_up
from engine.facts.fact_gauges import evaluate_readings
from engine.facts.readings import Covered, read_all
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from evaluator.gauges import Group
from evaluator.watched_gauges import CustomerMeasure, WatchedGauge
from store.alerts import backfills
from store.balances import wallets
from store.rules import routing_facts
from store.usage import gauges, stored_groups


async def evaluate_alert(
    transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str], *, reset: bool = False
) -> None:
    """Evaluates an alert for those of the customers that it covers, on the gauges of their current periods.

    Gauges that were last evaluated under the rules and facts of now are left out, unless the alert forgets its state
    first (`reset`). The router must not be that of ingest: customers are read into it here, as the
    transaction sees them.
    """
    if rule.measure.of_facts:
        await _evaluate_facts(transaction, rule, customer_ids, reset)
    else:
        await _evaluate_usage(transaction, rule, customer_ids, reset)


async def _evaluate_usage(
    transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str], reset: bool
) -> None:
    """Evaluates an alert on usage."""
    watches = await _watches(transaction, rule, customer_ids)
    if not watches:
        return
    watched = [watch.gauge for watch in watches]
    locked = await gauges.lock(transaction.driver, transaction.organization_id, watched, transaction.now)
    subjects = [before_fold(Movement(watch), locked[watch.gauge.gauge_id], set()) for watch in watches]
    for subject in subjects:
        subject.reset_alert = rule.alert_id if reset else None
    stale = [subject for subject in subjects if subject.stale or reset]
    if stale:
        await evaluate_gauges(transaction, stale)


async def _evaluate_facts(
    transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str], reset: bool
) -> None:
    """Evaluates an alert on facts."""
    connection, organization_id = transaction.connection, transaction.organization_id
    # The facts must not change between their reading and the lock of their gauges.
    held = await wallets.lock(connection, organization_id, customer_ids)
    found = await routing_facts.customers(transaction.driver, organization_id, customer_ids)
    wallet_of = {customer: held[customer.customer_id] for customer in found}
    timed = rule.measure.invoices is None  # totals of invoices do not change with time
    if timed:
        await catch_up(transaction, wallet_of)
    covered = [
        Covered(
            customer,
            [alike for alike in transaction.router.fact_rules(customer) if alike.measure == rule.measure],
            wallet.moment(transaction.now),
        )
        for customer, wallet in wallet_of.items()
        if rule.scope.covers(customer.customer_id, None, customer.plan_id)
    ]
    read = await read_all(transaction, covered)
    reset_alert = rule.alert_id if reset else None
    await evaluate_readings(transaction, read.gauges, backfilled=True, reset_alert=reset_alert)
    if timed:
        await wallets.set_earlier_timers(connection, organization_id, read.by_wallet(covered))


async def _watches(transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str]) -> list[WatchedGauge]:
    """The gauges of the current period that the alert watches and that stored events have moved."""
    targets = await _targets(transaction, rule, customer_ids)
    groups: dict[int, list[Group]] = await backfills.groups(
        transaction.driver, transaction.organization_id, targets, rule.group_keys, transaction.now
    )
    if rule.measure.contract_fields:
        # All cost of a gauge can have left it, with the custom fields of a subscription.
        stored = await stored_groups.groups(
            transaction.driver, transaction.organization_id, targets, rule.group_keys, transaction.now
        )
        for index, known in stored.items():
            groups[index] = sorted(known.union(groups.get(index, ())))
    watches = []
    for index, target in enumerate(targets):
        for group in groups.get(index, ()):
            watch = target.watched_gauge(group, transaction.now) if rule.selects(group) else None
            watches += [watch] if watch else []
    return watches


async def _targets(transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str]) -> list[CustomerMeasure]:
    """What the alert measures of those customers and subscriptions that it covers."""
    connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    router = transaction.router
    customers = await routing_facts.customers(connection, organization_id, customer_ids)
    for customer in customers:
        router.know_customer(customer)
    if rule.measure.metric_id is not None:
        for metric in await routing_facts.metrics(connection, organization_id, [rule.measure.metric_id]):
            router.metrics[metric.metric_id] = metric
    if rule.measure.per_subscription:
        subscriptions = await routing_facts.subscriptions_of(connection, organization_id, customer_ids)
        for one in subscriptions:
            router.know_subscription(one)
        measured = [
            router.customer_measure(rule.measure, one.customer_id, one.subscription_id, now)
            for one in subscriptions
            if rule.scope.covers(one.customer_id, one.subscription_id, one.plan_id)
        ]
    else:
        measured = [
            router.customer_measure(rule.measure, customer.customer_id, None, now)
            for customer in customers
            if rule.scope.covers(customer.customer_id, None, customer.plan_id)
        ]
    return [target for target in measured if target is not None]
