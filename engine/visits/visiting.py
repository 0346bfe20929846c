"""A visit: an alert looks at what customers have by now, whether or not anything of theirs moves."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from engine.evaluation.evaluation import Evaluation
from engine.evaluation.subjects import Movement, Subject, before_fold
from engine.facts import readings
from engine.facts.changes import catch_up, evaluate_readings
from engine.facts.readings import Covered
from evaluator.alerts import AlertRule
from evaluator.gauges import Group
from evaluator.routing import Router
from evaluator.watched_gauges import CustomerMeasure
from evaluator.watched_gauges import WatchedGauge as Watch
from store.alerts import visits as visiting
from store.balances import wallets
from store.identity.organizations import Organization
from store.postgres.database import Connection, driver
from store.usage import gauges
from store.usage import routing_facts as facts


async def visit_customers(
    connection: Connection,
    organization: Organization,
    router: Router,
    rule: AlertRule,
    customer_ids: Sequence[str],
    now: datetime,
    grace: timedelta,
    *,
    forgetting: bool = False,
) -> None:
    """Evaluates an alert for those of the customers that it covers, on the gauges of their current periods.

    Gauges that were visited under the rules and facts that they have now are left alone, unless the alert is to
    forget what it remembers of them (`forgetting`). The transaction has to hold
    the organization's lock. The router gives the epoch and the alerts, which have to be all that watch the same
    gauges: what trips them is written anew. Whom it knows neither matters nor changes; customers are read here, as
    the transaction sees them.
    """
    if rule.measure.of_facts:
        await _look_at_facts(connection, organization, router, rule, customer_ids, now, grace, forgetting)
        return
    watches = await _watches(connection, organization.organization_id, router, rule, customer_ids, now)
    if not watches:
        return
    raw = await driver(connection)
    locked = await gauges.lock(raw, organization.organization_id, [watch.gauge for watch in watches], now)
    subjects: list[Subject] = [before_fold(Movement(watch), locked[watch.gauge.gauge_id], set()) for watch in watches]
    for subject in subjects:
        subject.forgotten = rule.alert_id if forgetting else None
    stale = [subject for subject in subjects if subject.stale or forgetting]
    if stale:
        await Evaluation(raw, organization.organization_id, organization.name, router.epoch, now).run(stale)


async def _look_at_facts(
    connection: Connection,
    organization: Organization,
    router: Router,
    rule: AlertRule,
    customer_ids: Sequence[str],
    now: datetime,
    grace: timedelta,
    forgetting: bool,
) -> None:
    """Evaluates an alert on facts."""
    organization_id = organization.organization_id
    # What is read must not change before its gauge is locked.
    held = await wallets.lock(connection, organization_id, customer_ids)
    found = await facts.customers(await driver(connection), organization_id, customer_ids)
    known = {customer: held[customer.customer_id] for customer in found}
    # What an invoice comes to does not change with time.
    if rule.measure.invoices is None:
        await catch_up(connection, organization, router, known, now)
    # All alerts that watch the same gauges: what trips them is written anew.
    covered = [
        Covered(
            customer,
            [alike for alike in router.fact_rules(customer) if alike.measure == rule.measure],
            wallet.moment(now),
        )
        for customer, wallet in known.items()
        if rule.scope.covers(customer.customer_id, None, customer.plan_id)
    ]
    look = await readings.of_everything(connection, organization_id, covered, grace)
    forgotten = rule.alert_id if forgetting else None
    await evaluate_readings(connection, organization, router, look.found, now, first_look=True, forgotten=forgotten)
    if rule.measure.invoices is None:
        await wallets.set_earlier_timers(connection, organization_id, look.read(covered))


async def _watches(
    connection: Connection,
    organization_id: int,
    router: Router,
    rule: AlertRule,
    customer_ids: Sequence[str],
    now: datetime,
) -> list[Watch]:
    """The gauges of the current period that the alert watches and that events have moved already."""
    raw = await driver(connection)
    # What this transaction sees may yet be undone: the router that others share must not learn of it.
    router = Router(router.epoch, router.alerts.values(), router.plan_limits)
    found = await facts.customers(raw, organization_id, customer_ids)
    router.customers.update((customer.customer_id, customer) for customer in found)
    if rule.measure.metric_id is not None:
        for metric in await facts.metrics(raw, organization_id, [rule.measure.metric_id]):
            router.metrics[metric.metric_id] = metric
    targets: list[CustomerMeasure] = []
    if rule.measure.per_subscription:
        for one in await facts.subscriptions_of(raw, organization_id, customer_ids):
            router.subscriptions[one.customer_id, one.subscription_id] = one
            if rule.scope.covers(one.customer_id, one.subscription_id, one.plan_id):
                target = router.customer_measure(rule.measure, one.customer_id, one.subscription_id, now)
                targets += [target] if target else []
    else:
        for customer in found:
            if rule.scope.covers(customer.customer_id, None, customer.plan_id):
                target = router.customer_measure(rule.measure, customer.customer_id, None, now)
                targets += [target] if target else []
    groups: dict[int, list[Group]] = await visiting.groups(raw, organization_id, targets, rule.group_keys, now)
    watches = []
    for index, target in enumerate(targets):
        for group in groups.get(index, ()):
            watch = target.watched_gauge(group, now) if rule.selects(group) else None
            watches += [watch] if watch else []
    return watches
