"""Reading: what alerts on facts measure of customers, from the facts as they are stored now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.balance_values import (
    ENDED,
    NO_DATA,
    days_left,
    gauge_of,
    next_change,
    next_crossing,
)
from evaluator.balance_values import (
    FactValue as Reading,
)
from evaluator.balance_values import (
    balance_values as readings,
)
from evaluator.balances import BalanceKind, BalanceReading, Holding
from evaluator.changed_facts import ChangedFacts
from evaluator.gauges import Gauge
from evaluator.invoices import MeasuredInvoice, calendar_month
from evaluator.invoices import invoice_values as invoice_totals
from evaluator.routing_facts import CustomerFacts as Customer
from evaluator.transitions import Cause
from evaluator.watched_gauges import WatchedGauge as Watch
from evaluator.watched_gauges import watched_fact_gauge
from store.accounts import invoice_readings
from store.balances import holdings
from store.balances.wallets import ReadTimes
from store.postgres.database import Connection, driver


@dataclass(frozen=True)
class GaugeReading:
    """A gauge of facts, the alerts that watch it, what it reads, and what brought it there if it was time."""

    customer: Customer
    watch: Watch
    reading: Reading
    cause: Cause | None = None


@dataclass
class Look:
    """What alerts read of customers, and when time alone will next change that (by customer; None: never)."""

    found: list[GaugeReading] = field(default_factory=list)
    next_times: dict[str, datetime | None] = field(default_factory=dict)

    def expect(self, customer_id: str, time: datetime | None) -> None:
        """Notes a time at which something changes."""
        known = self.next_times.setdefault(customer_id, time)
        if time is not None and (known is None or time < known):
            self.next_times[customer_id] = time

    def read(self, covered: Iterable["Covered"]) -> dict[str, ReadTimes]:
        """What wallets note of this look."""
        return {
            item.customer.customer_id: ReadTimes(item.time, self.next_times.get(item.customer.customer_id))
            for item in covered
        }


class Covered(NamedTuple):
    """A customer, the alerts on facts to look at it with, and as of when."""

    customer: Customer
    rules: Sequence[AlertRule]
    time: datetime


async def of_everything(
    connection: Connection, organization_id: int, covered: Sequence[Covered], grace: timedelta
) -> Look:
    """All that those alerts read of those customers: who is new, or whose facts or alerts are.

    Of single invoices those that are not out of grace.
    """
    look = Look()
    kinds = {kind for item in covered for rule in item.rules for kind in _kinds(rule)}
    held: Mapping[str, list[Holding]] = {}
    if kinds:
        customer_ids = [item.customer.customer_id for item in covered]
        held = await holdings.of_kinds(await driver(connection), organization_id, customer_ids, kinds)
    for customer, rules, now in covered:
        found: dict[Gauge, tuple[Reading, list[AlertRule]]] = {}
        own = held.get(customer.customer_id, [])
        posted: dict[bool, Sequence[MeasuredInvoice]] = {}
        for rule in rules:
            if rule.measure.invoices is not None:
                monthly = rule.measure.invoices.monthly
                if monthly not in posted:
                    posted[monthly] = await _posted(connection, organization_id, customer, monthly, now, grace)
                with exact_arithmetic():
                    zone = customer.cycle.time_zone
                    totals = invoice_totals(rule, customer.customer_id, zone, posted[monthly], posted[monthly])
                    read = {gauge: Reading(total) for gauge, total in totals.items()}
            else:
                with exact_arithmetic():
                    read = _read(rule, customer, own, now)
                    look.expect(customer.customer_id, _next_time(rule, customer, own, now))
            for gauge, reading in read.items():
                found.setdefault(gauge, (reading, []))[1].append(rule)
        look.found += _watched(found, customer)
    return look


async def after_change(connection: Connection, organization_id: int, covered: Covered, touched: ChangedFacts) -> Look:
    """What alerts read that a change of one customer's facts may have moved."""
    customer, rules, now = covered
    look = Look()
    found: dict[Gauge, tuple[Reading, list[AlertRule]]] = {}
    if touched.invoices and any(rule.measure.invoices is not None for rule in rules):
        zone = customer.cycle.time_zone
        months = {invoice.month(zone) for invoice in touched.invoices}
        of_months = await invoice_readings.ending_in(connection, organization_id, customer.customer_id, list(months))
        with exact_arithmetic():
            for rule in rules:
                if rule.measure.invoices is not None:
                    totals = invoice_totals(rule, customer.customer_id, zone, touched.invoices, of_months)
                    for gauge, total in totals.items():
                        found.setdefault(gauge, (Reading(total), []))[1].append(rule)
    kinds = {one.kind for one in touched.balances}
    looking = [rule for rule in rules if kinds & _kinds(rule)]
    if looking:
        own = await _held(connection, organization_id, customer.customer_id, looking, touched.balances)
        with exact_arithmetic():
            for rule in looking:
                for gauge, reading in readings(rule, customer.customer_id, own, now, touched.balances).items():
                    found.setdefault(gauge, (reading, []))[1].append(rule)
                look.expect(customer.customer_id, next_change(rule, own, now))
    look.found = _watched(found, customer)
    return look


async def at_times(connection: Connection, organization_id: int, covered: Sequence[Covered]) -> Look:
    """What those alerts read of each customer at its time, of what only that time has changed."""
    look = Look()
    times = {item.customer.customer_id: item.time for item in covered}
    raw = await driver(connection)
    kinds = {kind for item in covered for rule in item.rules for kind in _kinds(rule)}
    held: dict[str, list[Holding]] = {}
    if kinds - {BalanceKind.SEAT_CREDIT}:
        held = await holdings.of_kinds(raw, organization_id, list(times), kinds - {BalanceKind.SEAT_CREDIT})
    if BalanceKind.SEAT_CREDIT in kinds:
        for customer_id, seats in (await holdings.seats_changing_at(raw, organization_id, times)).items():
            held.setdefault(customer_id, []).extend(await holdings.of_seats(raw, organization_id, customer_id, seats))
        for customer_id, time in (await holdings.next_change_of_seats(raw, organization_id, times)).items():
            look.expect(customer_id, time)
    for customer, rules, time in covered:
        own = held.get(customer.customer_id, [])
        changing = [one for one in own if any(time in (segment.start, segment.end) for segment in one.segments)]
        found: dict[Gauge, tuple[Reading, list[AlertRule]]] = {}
        with exact_arithmetic():
            for rule in rules:
                if rule.measure.invoices is not None:
                    continue
                selection = rule.measure.balances
                if selection is None or selection.reading is BalanceReading.DAYS_LEFT:
                    read = _read(rule, customer, own, time)
                else:
                    read = readings(rule, customer.customer_id, own, time, changing)
                for gauge, reading in read.items():
                    found.setdefault(gauge, (reading, []))[1].append(rule)
                look.expect(customer.customer_id, _next_time(rule, customer, own, time))
        look.found += _watched(found, customer, Cause(None, time))
    return look


def _kinds(rule: AlertRule) -> set[BalanceKind]:
    return set() if rule.measure.balances is None else set(rule.measure.balances.kinds)


async def _held(
    connection: Connection,
    organization_id: int,
    customer_id: str,
    rules: Iterable[AlertRule],
    touched: Iterable[Holding],
) -> list[Holding]:
    """The customer's balances of the kinds that those alerts look at; of seats only those that were touched."""
    raw = await driver(connection)
    kinds = {kind for rule in rules for kind in _kinds(rule)}
    pooled = kinds - {BalanceKind.SEAT_CREDIT}
    own: list[Holding] = []
    if pooled:
        own += (await holdings.of_kinds(raw, organization_id, [customer_id], pooled)).get(customer_id, [])
    seats = {one.seat for one in touched if one.seat is not None}
    if BalanceKind.SEAT_CREDIT in kinds and seats:
        own += await holdings.of_seats(raw, organization_id, customer_id, seats)
    return own


async def _posted(
    connection: Connection, organization_id: int, customer: Customer, monthly: bool, now: datetime, grace: timedelta
) -> Sequence[MeasuredInvoice]:
    """A customer's invoices that alerts look at: those of this calendar month, or all that are not out of grace."""
    customer_id = customer.customer_id
    if monthly:
        month = calendar_month(customer.cycle.time_zone, now)
        return await invoice_readings.ending_in(connection, organization_id, customer_id, [month])
    return await invoice_readings.ending_after(connection, organization_id, customer_id, now - grace)


def _read(rule: AlertRule, customer: Customer, own: Sequence[Holding], now: datetime) -> dict[Gauge, Reading]:
    """What an alert on balances, or on the days in a plan, reads now."""
    if rule.measure.balances is not None:
        return readings(rule, customer.customer_id, own, now)
    end = customer.plan_end
    reading = NO_DATA if end is None else ENDED if end < now else Reading(days_left(end, now))
    return {gauge_of(customer.customer_id, rule.measure, ()): reading}


def _next_time(rule: AlertRule, customer: Customer, own: Sequence[Holding], now: datetime) -> datetime | None:
    if rule.measure.balances is not None:
        return next_change(rule, own, now)
    return None if customer.plan_end is None else next_crossing(rule.thresholds, customer.plan_end, now)


def _watched(
    found: Mapping[Gauge, tuple[Reading, list[AlertRule]]], customer: Customer, cause: Cause | None = None
) -> list[GaugeReading]:
    return [
        GaugeReading(customer, watched_fact_gauge(gauge, rules, customer), reading, cause)
        for gauge, (reading, rules) in found.items()
    ]
