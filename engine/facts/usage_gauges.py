"""The gauges of usage that alerts watch for given customers: found, and evaluated without new usage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.evaluation.evaluation import evaluate_gauges
from engine.evaluation.subjects import Movement, Subject, before_fold, evaluations_of
from engine.rules.transaction import Transaction
from evaluator.aggregation import Aggregation
from evaluator.alerts import AlertRule
from evaluator.gauges import Gauge, Group, Measure
from evaluator.routing_facts import CustomerFacts
from evaluator.watched_gauges import CustomerMeasure, WatchedGauge
from store.rules import routing_facts
from store.usage import gauges, stored_groups
from store.usage.counted_groups import CountedGroup, counted_groups
from store.usage.gauges import NEVER_EVALUATED
from store.usage.recounts import HELD


class FoundGauge(NamedTuple):
    """A gauge that stored events have moved, and what they count.

    counted: None where the events were not read. They were read before the gauge was locked, in a transaction that
    holds the organization's lock since an epoch from which on every event moves the gauge. So the count is right if
    the gauge, once it is locked, was not evaluated since: a transaction that moves it evaluates it.
    """

    watch: WatchedGauge
    counted: CountedGroup | None

    @property
    def gauge(self) -> Gauge:
        """The gauge."""
        return self.watch.gauge


@dataclass(eq=False)
class AlikeRules:
    """Alerts that have the same measure and the same group keys, and so find their gauges together."""

    measure: Measure
    keys: tuple[str, ...]
    wide: list[AlertRule] = field(default_factory=list)
    of_customers: dict[str, list[AlertRule]] = field(default_factory=dict)  # those that name a customer

    def covering(self, customer_id: str, subscription_id: str | None, plan_id: str | None) -> list[AlertRule]:
        """The alerts that cover a customer or a subscription of it."""
        rules = [*self.wide, *self.of_customers.get(customer_id, ())]
        return [rule for rule in rules if rule.scope.covers(customer_id, subscription_id, plan_id)]


@dataclass(eq=False)
class Target:
    """What alerts measure of a customer or subscription, with those of the given alerts that cover it."""

    measured: CustomerMeasure
    rules: Sequence[AlertRule]

    def watch(self, group: Group, transaction: Transaction) -> WatchedGauge | None:
        """The gauge of a group in the present period; None when none of the given alerts selects the group."""
        if not any(rule.selects(group) for rule in self.rules):
            return None
        return self.measured.watched_gauge(group, transaction.now)


def alike(rules: Iterable[AlertRule]) -> list[AlikeRules]:
    """The alerts on usage, by what they measure."""
    found: dict[tuple[Measure, tuple[str, ...]], AlikeRules] = {}
    for rule in rules:
        key = rule.measure, rule.group_keys
        same = found.setdefault(key, AlikeRules(*key))
        if rule.scope.customer_id is None:
            same.wide.append(rule)
        else:
            same.of_customers.setdefault(rule.scope.customer_id, []).append(rule)
    return list(found.values())


async def find_gauges(
    transaction: Transaction,
    rules: Iterable[AlertRule],
    customer_ids: Sequence[str],
    *,
    all_gauges: bool = False,
    known: Mapping[str, CustomerFacts] | None = None,
) -> list[FoundGauge]:
    """The gauges of present periods that the alerts watch and that stored events have moved, in the order of locks.

    Gauges that were evaluated under the rules and facts of now are left out, unless `all_gauges` is set. The
    transaction's router must not be that of ingest: customers are read into it, as the transaction sees them.
    known: those customers that it has read already, if it has read all that exist.
    """
    customers = await _know_customers(transaction, customer_ids, known)
    found: dict[Gauge, FoundGauge] = {}
    for same in alike(rules):
        targets = await _targets(transaction, customers, same)
        for one in await _of_targets(transaction, same, targets, all_gauges):
            found.setdefault(one.gauge, one)
    return sorted(found.values(), key=lambda one: (one.gauge.customer_id, one.gauge.gauge_id))


async def targets_of(transaction: Transaction, rule: AlertRule, customer_id: str) -> list[Target]:
    """What one alert measures of a customer and its subscriptions."""
    [same] = alike([rule])
    return await _targets(transaction, await _know_customers(transaction, [customer_id]), same)


async def evaluate_found(
    transaction: Transaction,
    found: Sequence[FoundGauge],
    *,
    reset_alert: str | None = None,
    max_evaluations: int | None = None,
) -> int:
    """Locks gauges and evaluates those that are stale; all of them where an alert forgets its state first.

    max_evaluations: of one alert on one gauge, about; the gauges beyond are left out, but not the first one. Returns
    how many gauges are done, from the first one on.
    """
    if not found:
        return 0
    watched = [one.gauge for one in found]
    locked = await gauges.lock(transaction.driver, transaction.organization_id, watched, transaction.now)
    subjects, slices = list[Subject](), transaction.slices()
    done = evaluations = 0
    await slices.begin()
    for one in found:
        await slices.pause()
        subject = before_fold(Movement(one.watch), locked[one.gauge.gauge_id], set())
        if subject.stale or reset_alert is not None:
            subject.reset_alert = reset_alert
            if subject.before is None and one.counted is not None:
                _take_over(subject, one.counted)
            evaluations += evaluations_of(subject)
            if subjects and max_evaluations is not None and evaluations > max_evaluations:
                break
            subjects.append(subject)
        done += 1
    if subjects:
        await evaluate_gauges(transaction, subjects)
    return done


def _take_over(subject: Subject, counted: CountedGroup) -> None:
    """Takes what was counted before the lock as the tally, instead of a recount."""
    # The values of UNIQUE_COUNT have to be stored as well, which a recount does.
    if subject.movement.watch.aggregation is not Aggregation.UNIQUE_COUNT:
        subject.before = counted.tally
        subject.untouched = counted.events == 0 and subject.rules_epoch == NEVER_EVALUATED


async def _know_customers(
    transaction: Transaction, customer_ids: Sequence[str], known: Mapping[str, CustomerFacts] | None = None
) -> list[CustomerFacts]:
    """Reads customers into the router, which is the transaction's own."""
    if known is not None:
        customers = [known[one] for one in customer_ids if one in known]
    else:
        customers = await routing_facts.customers(transaction.driver, transaction.organization_id, customer_ids)
    for customer in customers:
        transaction.router.know_customer(customer)
    return customers


async def _targets(transaction: Transaction, customers: Sequence[CustomerFacts], same: AlikeRules) -> list[Target]:
    """What alike alerts measure of those customers and subscriptions that they cover."""
    connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    measure, router = same.measure, transaction.router
    if measure.metric_id is not None and measure.metric_id not in router.metrics:
        for metric in await routing_facts.metrics(connection, organization_id, [measure.metric_id]):
            router.metrics[metric.metric_id] = metric
    owners: list[tuple[str, str | None, str | None]] = []
    if measure.per_subscription:
        customer_ids = [customer.customer_id for customer in customers]
        for one in await routing_facts.subscriptions_of(connection, organization_id, customer_ids):
            router.know_subscription(one)
            owners.append((one.customer_id, one.subscription_id, one.plan_id))
    else:
        owners += [(one.customer_id, None, one.plan_id) for one in customers]
    targets, slices = list[Target](), transaction.slices()
    await slices.begin()
    for customer_id, subscription_id, plan_id in owners:
        await slices.pause()
        rules = same.covering(customer_id, subscription_id, plan_id)
        measured = router.customer_measure(measure, customer_id, subscription_id, now) if rules else None
        if measured is not None:
            targets.append(Target(measured, rules))
    return targets


async def _of_targets(
    transaction: Transaction, same: AlikeRules, targets: Sequence[Target], all_gauges: bool
) -> list[FoundGauge]:
    """The gauges of alike alerts; see `find_gauges`."""
    if same.keys:
        found = await _of_groups(transaction, same, targets)
        return found if all_gauges else await _stale(transaction, found)
    watches, slices = dict[WatchedGauge, Target](), transaction.slices()
    await slices.begin()
    for target in targets:
        await slices.pause()
        if (watch := target.watch((), transaction)) is not None:
            watches[watch] = target
    epochs = await gauges.epochs_with_value(
        transaction.driver, transaction.organization_id, [watch.gauge for watch in watches]
    )
    # Events are read only of gauges that have to be recounted, all of which are stale, and of those without a value.
    known, unknown = list[FoundGauge](), list[Target]()
    for watch, target in watches.items():
        epoch = epochs.get(watch.gauge.gauge_id)
        if epoch is None or epoch < watch.continuous_since_epoch:
            unknown.append(target)
        elif epoch < watch.required_epoch or all_gauges:
            known.append(FoundGauge(watch, None))
    return known + await _of_groups(transaction, same, unknown)


async def _of_groups(transaction: Transaction, same: AlikeRules, targets: Sequence[Target]) -> list[FoundGauge]:
    """The gauges of all groups that the stored events of these targets have."""
    connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    measured = [target.measured for target in targets]
    counted = await counted_groups(connection, organization_id, measured, same.keys, now)
    groups: dict[int, dict[Group, CountedGroup | None]] = {
        index: {one.group: one for one in of_target} for index, of_target in counted.items()
    }
    if same.measure.counts_held:
        # What was counted before the lock lacks what is held: these gauges are recounted.
        held = await counted_groups(connection, organization_id, measured, same.keys, now, HELD)
        groups = {
            index: dict.fromkeys([*groups.get(index, {}), *(one.group for one in held.get(index, ()))])
            for index in groups.keys() | held.keys()
        }
    stored: dict[int, set[Group]] = {}
    if same.measure.contract_fields:
        # All cost of a gauge can have left it, with the custom fields of a subscription.
        stored = await stored_groups.groups(connection, organization_id, measured, same.keys, now)
    found, slices = list[FoundGauge](), transaction.slices()
    await slices.begin()
    for index, target in enumerate(targets):
        of_target = groups.get(index, {})
        for group in [*of_target, *(stored.get(index, set()) - of_target.keys())]:
            await slices.pause()
            if (watch := target.watch(group, transaction)) is not None:
                found.append(FoundGauge(watch, of_target.get(group)))
    return found


async def _stale(transaction: Transaction, found: Sequence[FoundGauge]) -> list[FoundGauge]:
    """Those of the gauges that were not evaluated under the rules and facts of now."""
    epochs = await gauges.epochs_with_value(
        transaction.driver, transaction.organization_id, [one.gauge for one in found]
    )
    return [one for one in found if epochs.get(one.gauge.gauge_id, NEVER_EVALUATED) < one.watch.required_epoch]
