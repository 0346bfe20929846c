"""Parts of a backfill: what one transaction evaluates of one alert, which may end within a customer."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from engine.facts.fact_gauges import evaluate_readings
from engine.facts.one_alert import read_facts
from engine.facts.readings import GaugeReading
from engine.facts.usage_gauges import FoundGauge, evaluate_found, find_gauges, targets_of
from engine.limits import EVALUATIONS_AT_ONCE
from engine.rules.transaction import Transaction, Transactions
from evaluator.alerts import AlertRule
from evaluator.gauges import Gauge
from evaluator.routing_facts import CustomerFacts
from store.alerts.backfills import Backfill, Progress
from store.identity.organizations import Organization
from store.postgres.database import Database, driver
from store.usage.counted_groups import CountedGroup, counted_groups


class Part(NamedTuple):
    """What was evaluated.

    progress: how far the backfill is now. gauges, customers: how many were evaluated; a customer that is not complete
    is not counted. rest: what is left of that customer.
    """

    progress: Progress
    gauges: int
    customers: int
    rest: "Rest | None" = None


class _CountedGauge(NamedTuple):
    gauge_id: UUID
    subscription_id: str | None
    counted: CountedGroup


@dataclass(frozen=True)
class Rest:
    """The gauges that are left of the customer after `progress`, in the order of their ids, with what events count.

    So the events of a customer with many groups are read once, and not once for each part. epoch: of the rules under
    which they were counted.
    """

    progress: Progress
    customer_id: str
    epoch: int
    gauges: Sequence[_CountedGauge]

    async def take(self, transaction: Transaction, rule: AlertRule, limit: int) -> list[FoundGauge] | None:
        """The first of the gauges; None when the alert or the customer has changed and they have to be found anew."""
        if rule.changed_epoch > self.epoch:
            return None  # gauges that were up to date when these were found may be missing
        targets = await targets_of(transaction, rule, self.customer_id)
        by_owner = {target.measured.subscription_id: target for target in targets}
        found, slices = list[FoundGauge](), transaction.slices()
        await slices.begin()
        for one in self.gauges[:limit]:
            await slices.pause()
            target = by_owner.get(one.subscription_id)
            watch = target.watch(one.counted.group, transaction) if target else None
            # Since `epoch` every event has moved the gauge, or else it has to be counted anew.
            if watch is None or watch.gauge.gauge_id != one.gauge_id or watch.continuous_since_epoch > self.epoch:
                return None
            found.append(FoundGauge(watch, one.counted))
        return found


async def evaluate_rest(
    transaction: Transaction, rule: AlertRule, rest: Rest, limit: int, max_evaluations: int = EVALUATIONS_AT_ONCE
) -> Part | None:
    """Evaluates the next gauges of a customer, within the limits; None when they have to be found anew.

    limit: of gauges. max_evaluations: about; of one alert on one gauge each.
    """
    found = await rest.take(transaction, rule, limit)
    if found is None:
        return None
    done = await evaluate_found(transaction, found, max_evaluations=max_evaluations)
    left = rest.gauges[done:]
    if not left:
        return Part(Progress(rest.customer_id), done, 1)
    progress = Progress(rest.progress.customer_id, (rest.customer_id, found[done - 1].gauge.gauge_id))
    return Part(progress, done, 0, Rest(progress, rest.customer_id, rest.epoch, left))


async def count_ahead(
    transactions: Transactions, database: Database, backfill: Backfill, progress: Progress, customer_id: str
) -> Rest | None:
    """Counts the groups of a customer with very many events, while no lock is held; None if the alert has ended.

    A change of the rules does not wait for it, nor does usage. Usage that comes meanwhile evaluates its gauges
    itself, so that what was counted of these is not used.
    """
    organization = Organization(backfill.organization_id, backfill.organization)
    async with transactions.open(organization) as transaction:
        rule = await transaction.rule(backfill.alert_id)
        if rule is None:
            return None
        targets = await targets_of(transaction, rule, customer_id)
    measured = [target.measured for target in targets]
    async with database.transaction() as connection:
        raw = await driver(connection)
        counted = await counted_groups(raw, backfill.organization_id, measured, rule.group_keys, transaction.now)
    gauges, slices = list[_CountedGauge](), transaction.slices()
    await slices.begin()
    for index, of_target in counted.items():
        for one in of_target:
            await slices.pause()
            watch = targets[index].watch(one.group, transaction)
            if watch is not None and not _is_done(watch.gauge, progress):
                gauges.append(_CountedGauge(watch.gauge.gauge_id, watch.gauge.subscription_id, one))
    return Rest(progress, customer_id, transaction.epoch, sorted(gauges, key=lambda one: one.gauge_id))


async def evaluate_part(
    transaction: Transaction,
    rule: AlertRule,
    progress: Progress,
    customer_ids: Sequence[str],
    limit: int,
    settled: Set[str] = frozenset(),
    known: Mapping[str, CustomerFacts] | None = None,
    max_evaluations: int = EVALUATIONS_AT_ONCE,
) -> Part:
    """Evaluates an alert for customers, on at most `limit` gauges.

    customer_ids: at least one, those that follow `progress`, sorted. settled: those of them for which it is
    evaluated already. known: see `find_gauges`. max_evaluations: about; of one alert on one gauge each. A gauge that
    has more of them is evaluated alone.
    """
    if rule.measure.of_facts:
        read = await read_facts(transaction, [rule], customer_ids)
        readings, reached = _cut(sorted(read.gauges, key=_position), progress, customer_ids, limit)
        fitting = _fitting(readings, max_evaluations)
        if fitting < len(readings):
            readings, reached = _cut(readings, progress, customer_ids, fitting)
        await evaluate_readings(transaction, readings, backfilled=True)
        return Part(reached, len(readings), _complete(customer_ids, reached))
    wanted = [one for one in customer_ids if one not in settled]
    found = await find_gauges(transaction, [rule], wanted, known=known)
    part, reached = _cut(found, progress, customer_ids, limit)
    done = await evaluate_found(transaction, part, max_evaluations=max_evaluations)
    if done < len(part):
        part, reached = _cut(part, progress, customer_ids, done)
    return Part(reached, done, _complete(customer_ids, reached), _rest(transaction, found, reached))


def _fitting(readings: Sequence[GaugeReading], max_evaluations: int) -> int:
    """How many of the readings have at most so many alerts together; at least 1."""
    totals = accumulate(len(one.watch.alerts) for one in readings)
    return max(1, sum(total <= max_evaluations for total in totals))


class OfGauge(Protocol):
    """What was found of one gauge."""

    @property
    def gauge(self) -> Gauge:
        """The gauge."""
        ...


_Found = TypeVar("_Found", bound=OfGauge)


def _cut(
    found: Sequence[_Found], progress: Progress, customer_ids: Sequence[str], limit: int
) -> tuple[Sequence[_Found], Progress]:
    """The first of what is found and not done yet, at most `limit`, and how far the backfill is after these."""
    waiting = [one for one in found if not _is_done(one.gauge, progress)]
    if len(waiting) <= limit:
        return waiting, Progress(customer_ids[-1])
    last, following = waiting[limit - 1].gauge, waiting[limit].gauge
    if following.customer_id != last.customer_id:
        return waiting[:limit], Progress(last.customer_id)
    index = customer_ids.index(last.customer_id)
    complete = customer_ids[index - 1] if index else progress.customer_id
    return waiting[:limit], Progress(complete, (last.customer_id, last.gauge_id))


def _complete(customer_ids: Sequence[str], progress: Progress) -> int:
    """How many of the customers are complete."""
    return bisect_right(customer_ids, progress.customer_id)


def _position(one: OfGauge) -> tuple[str, UUID]:
    return one.gauge.customer_id, one.gauge.gauge_id


def _is_done(gauge: Gauge, progress: Progress) -> bool:
    if progress.within is None:
        return False
    customer_id, gauge_id = progress.within
    return gauge.customer_id == customer_id and gauge.gauge_id <= gauge_id


def _rest(transaction: Transaction, found: Sequence[FoundGauge], progress: Progress) -> Rest | None:
    """What is left of the customer that is not complete, unless its events have to be read again anyway."""
    if progress.within is None:
        return None
    customer_id, _ = progress.within
    left = [
        _CountedGauge(one.gauge.gauge_id, one.gauge.subscription_id, one.counted)
        for one in found
        if one.counted is not None and one.gauge.customer_id == customer_id and not _is_done(one.gauge, progress)
    ]
    complete = all(one.counted is not None for one in found if one.gauge.customer_id == customer_id)
    return Rest(progress, customer_id, transaction.epoch, left) if complete else None
