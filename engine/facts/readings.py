"""Readings: the numbers that alerts on facts measure of customers, from the facts as they are stored now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.balance_values import (
    ENDED,
    NO_DATA,
    FactValue,
    balance_values,
    days_left,
    gauge_of,
    next_change,
    next_level_time,
)
from evaluator.balances import BalanceKind, BalanceReading, Holding
from evaluator.changed_facts import ChangedFacts
from evaluator.gauges import Gauge
from evaluator.invoices import MeasuredInvoice, calendar_month, invoice_values
from evaluator.routing_facts import CustomerFacts
from evaluator.transitions import Cause
from evaluator.watched_gauges import WatchedGauge, watched_fact_gauge
from store.accounts import invoice_readings
from store.balances import holdings
from store.balances.wallet_timers import ReadTimes


@dataclass(frozen=True)
class GaugeReading:
    """A gauge of facts, the alerts that watch it, and its reading.

    cause: set where time alone changed it. epoch: see `Subject.epoch`.
    """

    customer: CustomerFacts
    watch: WatchedGauge
    reading: FactValue
    cause: Cause | None = None
    epoch: int | None = None

    @property
    def gauge(self) -> Gauge:
        """The gauge."""
        return self.watch.gauge


class Covered(NamedTuple):
    """A customer, the alerts on facts to evaluate for it, and the time of which its facts are read."""

    customer: CustomerFacts
    rules: Sequence[AlertRule]
    time: datetime


@dataclass
class FactReadings:
    """Readings of customers, and when time alone will next change them (by customer id; None: never)."""

    gauges: list[GaugeReading] = field(default_factory=list)
    next_times: dict[str, datetime | None] = field(default_factory=dict)

    def expect(self, customer_id: str, time: datetime | None) -> None:
        """Notes a time at which a reading of the customer changes."""
        known = self.next_times.setdefault(customer_id, time)
        if time is not None and (known is None or time < known):
            self.next_times[customer_id] = time

    def by_wallet(self, covered: Iterable[Covered]) -> dict[str, ReadTimes]:
        """What the wallets of these customers store: as of when they were read, and the time of the next change."""
        return {
            item.customer.customer_id: ReadTimes(item.time, self.next_times.get(item.customer.customer_id))
            for item in covered
        }


class _OfCustomer:
    """The readings of one customer, of which several alerts may share a gauge."""

    def __init__(self, customer: CustomerFacts) -> None:
        self._customer = customer
        self._found: dict[Gauge, tuple[FactValue, list[AlertRule]]] = {}

    def add(self, rule: AlertRule, read: Mapping[Gauge, FactValue]) -> None:
        """Adds what one alert reads."""
        for gauge, reading in read.items():
            self._found.setdefault(gauge, (reading, []))[1].append(rule)

    def watched(self, cause: Cause | None = None, epoch: int | None = None) -> list[GaugeReading]:
        """The gauges with their alerts."""
        customer = self._customer
        return [
            GaugeReading(customer, watched_fact_gauge(gauge, rules, customer), reading, cause, epoch)
            for gauge, (reading, rules) in self._found.items()
        ]


async def read_all(transaction: Transaction, covered: Sequence[Covered]) -> FactReadings:
    """All readings of customers that are new, or that other alerts cover than before.

    Of single invoices those whose period is not out of grace.
    """
    found = FactReadings()
    kinds = {kind for item in covered for rule in item.rules for kind in _kinds(rule)}
    held: Mapping[str, list[Holding]] = {}
    if kinds:
        customer_ids = [item.customer.customer_id for item in covered]
        held = await holdings.of_kinds(transaction.driver, transaction.organization_id, customer_ids, kinds)
    slices = transaction.slices()
    for customer, rules, time in covered:
        own = held.get(customer.customer_id, [])
        of_customer = _OfCustomer(customer)
        posted: dict[bool, Sequence[MeasuredInvoice]] = {}
        for rule in rules:
            await slices.pause()
            if rule.measure.invoices is not None:
                monthly = rule.measure.invoices.monthly
                if monthly not in posted:
                    posted[monthly] = await _posted(transaction, customer, monthly, time)
                of_customer.add(rule, _totals(rule, customer, posted[monthly], posted[monthly]))
            else:
                with exact_arithmetic():
                    of_customer.add(rule, _read(rule, customer, own, time))
                    found.expect(customer.customer_id, _next_time(rule, customer, own, time))
        found.gauges += of_customer.watched()
    return found


async def read_touched(transaction: Transaction, covered: Covered, touched: ChangedFacts) -> FactReadings:
    """The readings that a change of one customer's facts may have moved."""
    customer, rules, time = covered
    found, of_customer = FactReadings(), _OfCustomer(customer)
    if touched.invoices and any(rule.measure.invoices is not None for rule in rules):
        months = {invoice.month(customer.cycle.time_zone) for invoice in touched.invoices}
        of_months = await invoice_readings.ending_in(
            transaction.connection, transaction.organization_id, customer.customer_id, list(months)
        )
        for rule in rules:
            if rule.measure.invoices is not None:
                of_customer.add(rule, _totals(rule, customer, touched.invoices, of_months))
    kinds = {one.kind for one in touched.balances}
    of_balances = [rule for rule in rules if kinds & _kinds(rule)]
    if of_balances:
        own = await _held(transaction, customer.customer_id, of_balances, touched.balances)
        with exact_arithmetic():
            for rule in of_balances:
                of_customer.add(rule, balance_values(rule, customer.customer_id, own, time, touched.balances))
                found.expect(customer.customer_id, next_change(rule, own, time))
    found.gauges = of_customer.watched()
    return found


async def read_at_times(transaction: Transaction, covered: Sequence[Covered]) -> FactReadings:
    """The readings of each customer that time alone has changed, as of the customer's time.

    An alert that was created later is not evaluated on a reading from before its creation: its backfill follows, and
    finds the gauge as it is then.
    """
    found = FactReadings()
    held = await _held_at_times(transaction, covered, found)
    for customer, rules, time in covered:
        own = held.get(customer.customer_id, [])
        changing = [one for one in own if any(time in (segment.start, segment.end) for segment in one.segments)]
        of_customer = _OfCustomer(customer)
        with exact_arithmetic():
            for rule in rules:
                if rule.measure.invoices is not None:
                    continue
                found.expect(customer.customer_id, _next_time(rule, customer, own, time))
                selection = rule.measure.balances
                if rule.create_time >= time:
                    continue
                if selection is None or selection.reading is BalanceReading.DAYS_LEFT:
                    of_customer.add(rule, _read(rule, customer, own, time))
                else:
                    of_customer.add(rule, balance_values(rule, customer.customer_id, own, time, changing))
        # For the backfill of an alert that is left out, its gauges were last evaluated before its creation.
        epoch = min((rule.create_epoch - 1 for rule in rules if rule.create_time >= time), default=None)
        found.gauges += of_customer.watched(Cause(None, time), epoch)
    return found


async def _held_at_times(
    transaction: Transaction, covered: Sequence[Covered], found: FactReadings
) -> dict[str, list[Holding]]:
    """The balances of each customer; of seats only those that change at its time. Notes when others will change."""
    connection, organization_id = transaction.driver, transaction.organization_id
    times = {item.customer.customer_id: item.time for item in covered}
    kinds = {kind for item in covered for rule in item.rules for kind in _kinds(rule)}
    held: dict[str, list[Holding]] = {}
    if kinds - {BalanceKind.SEAT_CREDIT}:
        held = await holdings.of_kinds(connection, organization_id, list(times), kinds - {BalanceKind.SEAT_CREDIT})
    if BalanceKind.SEAT_CREDIT in kinds:
        changing = await holdings.seats_changing_at(connection, organization_id, times)
        for customer_id, seats in changing.items():
            of_seats = await holdings.of_seats(connection, organization_id, customer_id, seats)
            held.setdefault(customer_id, []).extend(of_seats)
        next_times = await holdings.next_change_of_seats(connection, organization_id, times)
        for customer_id, time in next_times.items():
            found.expect(customer_id, time)
    return held


def _kinds(rule: AlertRule) -> set[BalanceKind]:
    return set() if rule.measure.balances is None else set(rule.measure.balances.kinds)


async def _held(
    transaction: Transaction, customer_id: str, rules: Iterable[AlertRule], touched: Iterable[Holding]
) -> list[Holding]:
    """The customer's balances of the kinds that those alerts measure; of seats only those that were touched."""
    connection, organization_id = transaction.driver, transaction.organization_id
    kinds = {kind for rule in rules for kind in _kinds(rule)}
    pooled = kinds - {BalanceKind.SEAT_CREDIT}
    own: list[Holding] = []
    if pooled:
        own += (await holdings.of_kinds(connection, organization_id, [customer_id], pooled)).get(customer_id, [])
    seats = {one.seat for one in touched if one.seat is not None}
    if BalanceKind.SEAT_CREDIT in kinds and seats:
        own += await holdings.of_seats(connection, organization_id, customer_id, seats)
    return own


async def _posted(
    transaction: Transaction, customer: CustomerFacts, monthly: bool, time: datetime
) -> Sequence[MeasuredInvoice]:
    """A customer's invoices that alerts measure: those of this calendar month, or all that are not out of grace."""
    of_customer = transaction.connection, transaction.organization_id, customer.customer_id
    if monthly:
        return await invoice_readings.ending_in(*of_customer, [calendar_month(customer.cycle.time_zone, time)])
    return await invoice_readings.ending_after(*of_customer, time - transaction.grace)


def _totals(
    rule: AlertRule, customer: CustomerFacts, touched: Sequence[MeasuredInvoice], posted: Sequence[MeasuredInvoice]
) -> dict[Gauge, FactValue]:
    """What an alert on invoices reads of the gauges that these invoices touch."""
    with exact_arithmetic():
        totals = invoice_values(rule, customer.customer_id, customer.cycle.time_zone, touched, posted)
        return {gauge: FactValue(total) for gauge, total in totals.items()}


def _read(rule: AlertRule, customer: CustomerFacts, own: Sequence[Holding], time: datetime) -> dict[Gauge, FactValue]:
    """What an alert on balances, or on the days left in a plan, reads at a time."""
    if rule.measure.balances is not None:
        return balance_values(rule, customer.customer_id, own, time)
    end = customer.plan_end
    reading = NO_DATA if end is None else ENDED if end < time else FactValue(days_left(end, time))
    return {gauge_of(customer.customer_id, rule.measure, ()): reading}


def _next_time(rule: AlertRule, customer: CustomerFacts, own: Sequence[Holding], time: datetime) -> datetime | None:
    if rule.measure.balances is not None:
        return next_change(rule, own, time)
    return None if customer.plan_end is None else next_level_time(rule.thresholds, customer.plan_end, time)
