"""Alerts for many customers: those in alarm, the latest change first, then the others, customer by customer."""

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
from runtime.turns import Slices
from store.accounts import customers, subscriptions
from store.accounts.customers import StoredCustomer
from store.accounts.subscriptions import StoredSubscription
from store.alerts import alerts
from store.alerts import lists as alert_lists
from store.erasures.jobs import CustomerUnknown
from store.limits import effective_limits
from store.postgres.bounded_pages import MAX_EXAMINED
from store.postgres.database import Connection, driver
from store.views import alarms, fact_views
from store.views.alarm_candidates import AlarmFilter, Position
from store.views.alarms import Alarm
from store.views.customer_alerts import CustomerAlert, CustomerAlertStatus, GaugeState
from store.views.customer_views import GAUGES_AT_ONCE, CustomerView

MAX_CUSTOMERS_READ = 50  # for the others of one page; more are on the next page
MOST_ALERTS_READ = 100  # of one customer at once
FEWEST_ALERTS_READ = 20  # of one customer at once, if it has as many: a filter may leave out most of them
MAX_ALERTS_EXAMINED = 1_000  # of all customers, for the others of one page
ALARMS_AT_ONCE = 100  # whose customers and alerts are read by one statement, which is decoded without a pause
MAX_ALARM_READS = 10  # reads of candidates for one page; what is left is on the next page

_AFTER_LAST = datetime.max.replace(tzinfo=UTC)  # as create_time: after all alerts of a customer


class Cursor(NamedTuple):
    """The position of an entry: of an alarm its `Position`, of the others customer and age of the alert."""

    is_other: bool  # not in alarm
    time: datetime  # of an alarm its last change, of the others the creation of the alert
    customer_id: str
    gauge_id: UUID | None
    alert_id: str


class ListedAlert(NamedTuple):
    """An alert for a customer, and the position of the entry in the list."""

    cursor: Cursor
    found: CustomerAlert


@dataclass(frozen=True)
class ListFilter:
    """Which entries a list shows. states: of the alerts. statuses: None stands for an alert that is not evaluated."""

    ids: AlarmFilter
    states: Collection[DefinitionState]
    statuses: Collection[CustomerAlertStatus | None]

    @property
    def includes_alarms(self) -> bool:
        """Whether the list starts with entries in alarm."""
        return CustomerAlertStatus.IN_ALARM in self.statuses and DefinitionState.ACTIVE in self.states

    @property
    def includes_others(self) -> bool:
        """Whether the list has entries that are not in alarm."""
        return any(status is not CustomerAlertStatus.IN_ALARM for status in self.statuses)


async def page(
    connection: Connection,
    organization_id: int,
    list_filter: ListFilter,
    now: datetime,
    *,
    after: Cursor | None,
    limit: int,
    max_gauges: int = GAUGES_AT_ONCE,
    most_examined: int = MAX_EXAMINED,
) -> tuple[list[ListedAlert], Cursor | None]:
    """Up to `limit` entries, and the cursor after which to continue; None at the end.

    There may be fewer entries although more follow. The entry of an alarm has one gauge only. The transaction must
    not have read anything before. max_gauges: that are read for entries that are not in alarm, unless an alert has
    more. most_examined: see `CustomerView.list_page`.
    """
    # One snapshot for all statements: values, states and definitions must fit together.
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    found: list[ListedAlert] = []
    if list_filter.includes_alarms and not (after is not None and after.is_other):
        position = None if after is None else _position(after)
        for _ in range(MAX_ALARM_READS):
            more, position = await alarms.page(
                connection, organization_id, list_filter.ids, now, after=position, limit=limit - len(found)
            )
            for first in range(0, len(more), ALARMS_AT_ONCE):
                found += await _entries(connection, organization_id, more[first : first + ALARMS_AT_ONCE], now)
            if position is None or len(found) == limit:
                break
        if position is not None:
            return found, _alarm_cursor(position)
        after = None
    if not list_filter.includes_others:
        return found, None
    start = after or Cursor(True, _AFTER_LAST, "", None, "")
    if len(found) == limit:
        return found, start
    room = _Room(limit - len(found), max_gauges, most_examined)
    others, cursor = await _others(connection, organization_id, list_filter, now, start, room)
    return found + others, cursor


async def _entries(
    connection: Connection, organization_id: int, found: Sequence[Alarm], now: datetime
) -> list[ListedAlert]:
    """The alarms as entries, without those of a billing period that is not the customer's any more."""
    if not found:
        return []
    definitions = await alerts.get_many(connection, organization_id, {one.position.alert_id for one in found})
    customer_of = await customers.get_many(connection, organization_id, {one.position.customer_id for one in found})
    keys = {
        (one.position.customer_id, one.stored.gauge.subscription_id)
        for one in found
        if one.stored.gauge.subscription_id is not None
    }
    subscription_of = await subscriptions.get_many(connection, organization_id, keys) if keys else {}
    values = _Values(connection, organization_id, now)
    entries, slices = list[ListedAlert](), Slices(organization_id)
    for one in found:
        await slices.pause()
        definition = definitions.get(one.position.alert_id)
        customer = customer_of.get(one.position.customer_id)
        gauge = one.stored.gauge
        subscription = subscription_of.get((gauge.customer_id, gauge.subscription_id or ""))
        rule = None if definition is None else definition.active_rule()
        if definition is None or rule is None or customer is None:
            continue
        if not _current(rule, gauge, customer, subscription, now):
            continue
        shown = GaugeState(
            gauge,
            await values.value(rule, one, customer),
            *one.state,
            limit=await values.limit(rule, gauge, customer, subscription),
        )
        alert_found = CustomerAlert(definition, customer.customer_id, (shown,), no_data=False)
        entries.append(ListedAlert(_alarm_cursor(one.position), alert_found))
    return entries


def _current(
    rule: AlertRule, gauge: Gauge, customer: StoredCustomer, subscription: StoredSubscription | None, now: datetime
) -> bool:
    """Whether the gauge is of the current period; after an anchor moved, gauges of the old periods remain."""
    if not rule.selects(gauge.group):
        return False
    if gauge.subscription_id is not None:
        return subscription is not None and gauge.period == (subscription.cycle or customer.cycle).period_at(now)
    if rule.measure.invoices is not None:
        return gauge.period == current_period(rule.measure.invoices, customer.cycle.time_zone, now)
    return gauge.period == (EVER if rule.measure.of_facts else customer.cycle.period_at(now))


class _Values:
    """The values and limits of gauges; those that follow from facts of a customer are computed once."""

    def __init__(self, connection: Connection, organization_id: int, now: datetime) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._now = now
        self._views: dict[tuple[str, str], fact_views.FactView] = {}

    async def value(self, rule: AlertRule, alarm: Alarm, customer: StoredCustomer) -> Decimal | None:
        """The value now. The values of balances and days change with time alone, so they are computed."""
        if not rule.measure.of_facts or rule.measure.invoices is not None:
            return alarm.stored.value
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
        view, gauge = self._views[key], alarm.stored.gauge
        return view.values.get(gauge, view.others.get(gauge))

    async def limit(
        self, rule: AlertRule, gauge: Gauge, customer: StoredCustomer, subscription: StoredSubscription | None
    ) -> Decimal | None:
        """The limit of the gauge, where the alert has percentage thresholds."""
        if not rule.has_percentages:
            return None
        plan_ids: dict[str | None, str | None] = {None: customer.plan_id}
        if subscription is not None:
            plan_ids[subscription.subscription_id] = subscription.plan_id
        raw = await driver(self._connection)
        find = await effective_limits.finder(raw, self._organization_id, customer.customer_id, plan_ids)
        return find(gauge)


async def _others(
    connection: Connection,
    organization_id: int,
    list_filter: ListFilter,
    now: datetime,
    start: Cursor,
    room: "_Room",
) -> tuple[list[ListedAlert], Cursor | None]:
    """Entries that are not in alarm, after `start`, as many as there is room for."""
    only = list_filter.ids.customer_ids
    most = max(1, MAX_CUSTOMERS_READ // max(1, len(list_filter.ids.alert_ids)))
    names = await customers.ids_after(connection, organization_id, only, start.customer_id, limit=most)
    remaining: list[tuple[str, alert_lists.Position | None]] = [(name, None) for name in names]
    if start.time != _AFTER_LAST:
        remaining.insert(0, (start.customer_id, (start.time, start.alert_id)))
    found: list[ListedAlert] = []
    cursor, examined = start, 0
    for customer_id, after in remaining:
        if room.gauges <= 0:
            return found, cursor
        try:
            view = await CustomerView.open(connection, organization_id, customer_id, now)
        except CustomerUnknown:
            continue
        async for position, one in _of_customer(view, list_filter, after, room):
            if one is None:
                return found, Cursor(True, position[0], customer_id, None, position[1])
            if room.entries == 0 or examined == MAX_ALERTS_EXAMINED:
                return found, cursor
            examined += 1
            cursor = Cursor(True, position[0], customer_id, None, position[1])
            if _is_other(one, list_filter):
                found.append(ListedAlert(cursor, one))
                room.entries -= 1
    last = names[-1] if len(names) == most else None
    return found, None if last is None else Cursor(True, _AFTER_LAST, last, None, "")


@dataclass
class _Room:
    """What a page may still have: entries that are not in alarm, and gauges that are read for them.

    examined: see `CustomerView.list_page`; it is for each read.
    """

    entries: int
    gauges: int
    examined: int


async def _of_customer(
    view: CustomerView, list_filter: ListFilter, after: alert_lists.Position | None, room: _Room
) -> AsyncIterator[tuple[alert_lists.Position, CustomerAlert | None]]:
    """The alerts of one customer, the oldest first, each with its position. Takes their gauges from the room.

    None: the page ends at this position, because it may examine no more alerts or gauges; the customer may have more.
    """
    if list_filter.ids.alert_ids:
        each = [await view.get(alert_id) for alert_id in sorted(set(list_filter.ids.alert_ids))]
        for one in sorted((one for one in each if one is not None), key=_age):
            if one.definition.state in list_filter.states and (after is None or _age(one) > after):
                yield _age(one), one
        return
    while True:
        wanted = min(MOST_ALERTS_READ, max(FEWEST_ALERTS_READ, room.entries + 1))
        part = await view.list_page(
            list_filter.states, after=after, limit=wanted, max_gauges=room.gauges, most_examined=room.examined
        )
        room.gauges -= sum(len(one.gauges) for one in part.alerts)
        for one in part.alerts:
            yield _age(one), one
        after = part.following
        if after is None:
            return
        if room.gauges <= 0 or not part.alerts or after != _age(part.alerts[-1]):
            yield after, None


def _is_other(one: CustomerAlert, list_filter: ListFilter) -> bool:
    return one.status is not CustomerAlertStatus.IN_ALARM and one.status in list_filter.statuses


def _age(one: CustomerAlert) -> alert_lists.Position:
    return one.definition.create_time, one.definition.alert_id


def _alarm_cursor(position: Position) -> Cursor:
    return Cursor(False, position.change_time, position.customer_id, position.gauge_id, position.alert_id)


def _position(cursor: Cursor) -> Position:
    assert cursor.gauge_id is not None, "the cursor of an alarm has a gauge"
    return Position(cursor.time, cursor.customer_id, cursor.gauge_id, cursor.alert_id)
