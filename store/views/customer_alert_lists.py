"""Alerts for many customers: those in alarm, the latest change first, then the others, customer by customer."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text

from evaluator.definitions import DefinitionState
from store.accounts import customers
from store.alerts import lists as alert_lists
from store.erasures.jobs import CustomerUnknown
from store.postgres.bounded_pages import MAX_EXAMINED
from store.postgres.database import Connection
from store.views import alarms
from store.views.alarm_candidates import AlarmFilter, Position
from store.views.alarm_entries import Cursor, ListedAlert, alarm_cursor, entries_of
from store.views.customer_alerts import CustomerAlert, CustomerAlertStatus
from store.views.customer_views import GAUGES_AT_ONCE, CustomerView

MAX_CUSTOMERS_READ = 50  # for the others of one page; more are on the next page
MOST_ALERTS_READ = 100  # of one customer at once
FEWEST_ALERTS_READ = 20  # of one customer at once, if it has as many: a filter may leave out most of them
MAX_ALERTS_EXAMINED = 1_000  # of all customers, for the others of one page
ALARMS_AT_ONCE = 100  # whose customers and alerts are read by one statement, which is decoded without a pause
MAX_ALARM_READS = 10  # reads of candidates for one page; what is left is on the next page

_AFTER_LAST = datetime.max.replace(tzinfo=UTC)  # as create_time: after all alerts of a customer


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


@dataclass
class PageRoom:
    """What a page may still have.

    entries: of the list. gauges: that are read for entries that are not in alarm, unless an alert has more. examined:
    see `CustomerView.list_page`; it is for each read.
    """

    entries: int
    gauges: int = GAUGES_AT_ONCE
    examined: int = MAX_EXAMINED


async def page(
    connection: Connection,
    organization_id: int,
    list_filter: ListFilter,
    now: datetime,
    *,
    after: Cursor | None,
    room: PageRoom,
) -> tuple[list[ListedAlert], Cursor | None]:
    """As many entries as there is room for, and the cursor after which to continue; None at the end.

    There may be fewer entries although more follow. The entry of an alarm has one gauge only. The transaction must
    not have read anything before.
    """
    # One snapshot for all statements: values, states and definitions must fit together.
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    found: list[ListedAlert] = []
    if list_filter.includes_alarms and not (after is not None and after.is_other):
        position = None if after is None else _position(after)
        found, position = await _alarms(connection, organization_id, list_filter, now, position, room)
        if position is not None:
            return found, alarm_cursor(position)
        after = None
    if not list_filter.includes_others:
        return found, None
    start = after or Cursor(True, _AFTER_LAST, "", None, "")
    if room.entries == 0:
        return found, start
    others, cursor = await _others(connection, organization_id, list_filter, now, start, room)
    return found + others, cursor


async def _alarms(
    connection: Connection,
    organization_id: int,
    list_filter: ListFilter,
    now: datetime,
    after: Position | None,
    room: PageRoom,
) -> tuple[list[ListedAlert], Position | None]:
    """Entries in alarm after a position, and the position after which to continue; None if there are no more."""
    found, position = list[ListedAlert](), after
    for _ in range(MAX_ALARM_READS):
        more, position = await alarms.page(
            connection, organization_id, list_filter.ids, now, after=position, limit=room.entries
        )
        for first in range(0, len(more), ALARMS_AT_ONCE):
            entries = await entries_of(connection, organization_id, more[first : first + ALARMS_AT_ONCE], now)
            found += entries
            room.entries -= len(entries)
        if position is None or room.entries == 0:
            break
    return found, position


async def _others(
    connection: Connection,
    organization_id: int,
    list_filter: ListFilter,
    now: datetime,
    start: Cursor,
    room: PageRoom,
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


async def _of_customer(
    view: CustomerView, list_filter: ListFilter, after: alert_lists.Position | None, room: PageRoom
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


def _position(cursor: Cursor) -> Position:
    assert cursor.gauge_id is not None, "the cursor of an alarm has a gauge"
    return Position(cursor.time, cursor.customer_id, cursor.gauge_id, cursor.alert_id)
