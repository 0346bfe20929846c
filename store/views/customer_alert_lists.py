"""What alerts say of many customers: what is in alarm, the latest first, then the rest, customer by customer."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from evaluator.alerts import AlertRule
from evaluator.definitions import DefinitionState
from evaluator.gauges import EVER, Gauge
from evaluator.invoices import current_period
from store.accounts import customers, subscriptions
from store.accounts.customers import Customer
from store.accounts.subscriptions import Subscription
from store.alerts import alerts
from store.limits import effective as limit_facts
from store.postgres.database import Connection, driver
from store.views import alarms, fact_views
from store.views.alarms import Alarm, Narrowed, Place
from store.views.customer_alerts import CustomerAlert, CustomerAlertStatus, GaugeState
from store.views.customer_views import CustomerUnknown, CustomerView

MAX_CUSTOMERS_READ = 50  # of which the rest of one page is made; more are on the next page
ALERTS_READ = 100  # of one customer at once
MAX_ALARM_READS = 10  # of candidates, for one page; what they leave is on the next page

_ALL_OF_IT = datetime.max.replace(tzinfo=UTC)  # stands for the create_time of an alert behind all of a customer's


class Cursor(NamedTuple):
    """Where an entry stands: an alarm by its place, one of the rest by customer and age of the alert."""

    is_rest: bool
    time: datetime  # of an alarm its change, of the rest the alert's creation
    customer_id: str
    gauge_id: UUID | None
    alert_id: str


class Entry(NamedTuple):
    """What an alert says of a customer, and its place in the list."""

    cursor: Cursor
    found: CustomerAlert


@dataclass(frozen=True)
class Wanted:
    """What a list shows. states: of the alerts. statuses: None among them is an alert that is not evaluated."""

    narrowed: Narrowed
    states: Collection[DefinitionState]
    statuses: Collection[CustomerAlertStatus | None]

    @property
    def alarms(self) -> bool:
        """Whether it begins with what is in alarm."""
        return CustomerAlertStatus.IN_ALARM in self.statuses and DefinitionState.ACTIVE in self.states

    @property
    def rest(self) -> bool:
        """Whether it goes on with what is not."""
        return any(status is not CustomerAlertStatus.IN_ALARM for status in self.statuses)


async def page(
    connection: Connection,
    organization_id: int,
    wanted: Wanted,
    now: datetime,
    *,
    after: Cursor | None,
    limit: int,
) -> tuple[list[Entry], Cursor | None]:
    """Up to `limit` entries, and where to go on; None behind the last. There may be fewer although more follow.

    An alarm is one gauge, with only that in its gauges. Nothing may have been read in the transaction before.
    """
    # Values, states and definitions would otherwise come from different moments.
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    found: list[Entry] = []
    if wanted.alarms and not (after is not None and after.is_rest):
        place = None if after is None else _place(after)
        for _ in range(MAX_ALARM_READS):
            more, place = await alarms.page(
                connection, organization_id, wanted.narrowed, now, after=place, limit=limit - len(found)
            )
            found += await _entries(connection, organization_id, more, now)
            if place is None or len(found) == limit:
                break
        if place is not None:
            return found, _alarm_cursor(place)
        after = None
    if not wanted.rest:
        return found, None
    start = after or Cursor(True, _ALL_OF_IT, "", None, "")
    if len(found) == limit:
        return found, start
    rest, cursor = await _rest(connection, organization_id, wanted, now, start, limit - len(found))
    return found + rest, cursor


async def _entries(
    connection: Connection, organization_id: int, found: Sequence[Alarm], now: datetime
) -> list[Entry]:
    """The alarms as entries, those left out that are of a billing period which is not the customer's any more."""
    if not found:
        return []
    definitions = await alerts.get_many(connection, organization_id, {one.place.alert_id for one in found})
    customer_of = await customers.get_many(connection, organization_id, {one.place.customer_id for one in found})
    keys = {
        (one.place.customer_id, one.measured.gauge.subscription_id)
        for one in found
        if one.measured.gauge.subscription_id is not None
    }
    subscription_of = await subscriptions.get_many(connection, organization_id, keys) if keys else {}
    readings = _Readings(connection, organization_id, now)
    entries = []
    for one in found:
        definition = definitions.get(one.place.alert_id)
        customer = customer_of.get(one.place.customer_id)
        gauge = one.measured.gauge
        subscription = subscription_of.get((gauge.customer_id, gauge.subscription_id or ""))
        rule = None if definition is None else definition.rule()
        if definition is None or rule is None or customer is None:
            continue
        if not _current(rule, gauge, customer, subscription, now):
            continue
        shown = GaugeState(
            gauge,
            await readings.value(rule, one, customer),
            *one.remembered,
            limit=await readings.limit(rule, gauge, customer, subscription),
        )
        entries.append(
            Entry(_alarm_cursor(one.place), CustomerAlert(definition, customer.customer_id, (shown,), no_data=False))
        )
    return entries


def _current(
    rule: AlertRule, gauge: Gauge, customer: Customer, subscription: Subscription | None, now: datetime
) -> bool:
    """Whether the gauge is of the period that is current: an anchor that moved leaves the old one behind."""
    if not rule.selects(gauge.group):
        return False
    if gauge.subscription_id is not None:
        return subscription is not None and gauge.period == (subscription.cycle or customer.cycle).period_at(now)
    if rule.measure.invoices is not None:
        return gauge.period == current_period(rule.measure.invoices, customer.cycle.time_zone, now)
    return gauge.period == (EVER if rule.measure.of_facts else customer.cycle.period_at(now))


class _Readings:
    """Values and limits that are stored with customers and not with gauges, each read once."""

    def __init__(self, connection: Connection, organization_id: int, now: datetime) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._now = now
        self._views: dict[tuple[str, str], fact_views.FactView] = {}

    async def value(self, rule: AlertRule, alarm: Alarm, customer: Customer) -> Decimal | None:
        """The value as it is now: what balances read changes with time alone, so it is read and not remembered."""
        if not rule.measure.of_facts or rule.measure.invoices is not None:
            return alarm.measured.value
        key = customer.customer_id, rule.alert_id
        if key not in self._views:
            self._views[key] = (
                await fact_views.read(
                    self._connection,
                    self._organization_id,
                    customer.customer_id,
                    customer.plan_end_time,
                    [rule],
                    self._now,
                )
            )[rule.alert_id]
        view, gauge = self._views[key], alarm.measured.gauge
        return view.values.get(gauge, view.others.get(gauge))

    async def limit(
        self, rule: AlertRule, gauge: Gauge, customer: Customer, subscription: Subscription | None
    ) -> Decimal | None:
        """The limit that the gauge is compared with, for rules in percent of it."""
        if not rule.of_limits:
            return None
        plan_ids: dict[str | None, str | None] = {None: customer.plan_id}
        if subscription is not None:
            plan_ids[subscription.subscription_id] = subscription.plan_id
        raw = await driver(self._connection)
        find = await limit_facts.finder(raw, self._organization_id, customer.customer_id, plan_ids)
        return find(gauge)


async def _rest(
    connection: Connection, organization_id: int, wanted: Wanted, now: datetime, start: Cursor, limit: int
) -> tuple[list[Entry], Cursor | None]:
    """Up to `limit` entries that are not in alarm, behind `start`."""
    only = wanted.narrowed.customer_ids
    most = max(1, MAX_CUSTOMERS_READ // max(1, len(wanted.narrowed.alert_ids)))
    names = await customers.ids_after(connection, organization_id, only, start.customer_id, limit=most)
    todo: list[tuple[str, tuple[datetime, str] | None]] = [(name, None) for name in names]
    if start.time != _ALL_OF_IT:
        todo.insert(0, (start.customer_id, (start.time, start.alert_id)))
    found: list[Entry] = []
    for customer_id, after in todo:
        try:
            view = await CustomerView.open(connection, organization_id, customer_id, now)
        except CustomerUnknown:
            continue
        async for one in _of_customer(view, wanted, after):
            if len(found) == limit:
                return found, found[-1].cursor
            place = Cursor(True, one.definition.create_time, customer_id, None, one.definition.alert_id)
            found.append(Entry(place, one))
    last = names[-1] if len(names) == most else None
    return found, None if last is None else Cursor(True, _ALL_OF_IT, last, None, "")


async def _of_customer(
    view: CustomerView, wanted: Wanted, after: tuple[datetime, str] | None
) -> AsyncIterator[CustomerAlert]:
    """What is wanted of one customer and not in alarm, the oldest alert first."""
    if wanted.narrowed.alert_ids:
        each = [await view.get(alert_id) for alert_id in sorted(set(wanted.narrowed.alert_ids))]
        found = sorted((one for one in each if one is not None), key=_age)
        found = [
            one for one in found if one.definition.state in wanted.states and (after is None or _age(one) > after)
        ]
        for one in found:
            if _is_of_the_rest(one, wanted):
                yield one
        return
    while True:
        definitions, read = await view.list_page(wanted.states, after=after, limit=ALERTS_READ)
        for one in read:
            after = _age(one)
            if _is_of_the_rest(one, wanted):
                yield one
        if len(definitions) < ALERTS_READ and len(read) == len(definitions):
            return


def _is_of_the_rest(one: CustomerAlert, wanted: Wanted) -> bool:
    return one.status is not CustomerAlertStatus.IN_ALARM and one.status in wanted.statuses


def _age(one: CustomerAlert) -> tuple[datetime, str]:
    return one.definition.create_time, one.definition.alert_id


def _alarm_cursor(place: Place) -> Cursor:
    return Cursor(False, place.change_time, place.customer_id, place.gauge_id, place.alert_id)


def _place(cursor: Cursor) -> Place:
    assert cursor.gauge_id is not None, "the place of an alarm names its gauge"
    return Place(cursor.time, cursor.customer_id, cursor.gauge_id, cursor.alert_id)
