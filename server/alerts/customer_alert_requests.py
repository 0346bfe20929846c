"""What requests for the alerts of customers ask for: filters, selections of gauges, and where a page continues."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from evaluator.gauges import Group
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import customer_alert_pb2, gauge_pb2
from server.alerts.usage_reading import MAX_PROPERTIES, MAX_PROPERTY_LENGTH
from server.calls.answer_size import read_room
from server.calls.paging import Page, read_page
from server.calls.validation import Violations
from server.mapping.gauges import MAX_GAUGES, STATUSES
from store.views.alarm_candidates import AlarmFilter
from store.views.alarm_entries import Cursor
from store.views.customer_alerts import CustomerAlertStatus, GaugeSelection

MAX_IDS = 100  # of one filter
_STATUS_OF = {number: status for status, number in STATUSES.items()}

# In a list of many customers, entries in alarm come first, and the rest after them. The cursor: 1 for the rest and 0
# otherwise, time, customer, gauge (empty for the rest), alert.
CURSOR_OF_MANY = (int, datetime, str, str, str)
_CURSOR_OF_GAUGES = (int, str)  # of the last gauge: whether it was not in alarm, and its id


def read_selection(
    violations: Violations, request: messages.GetCustomerAlertRequest
) -> tuple[GaugeSelection, Page, int]:
    """The selection and the page of gauges that a request asks for, and the bytes for them."""
    selection = GaugeSelection(
        violations.identifier("subscription_id", request.subscription_id, required=False) or None,
        read_group(violations, request.group),
    )
    bound_to = (
        request.alert_id,
        request.customer_id,
        request.subscription_id,
        *(text for pair in selection.group for text in pair),
    )
    size = request.page_size or MAX_GAUGES
    page = read_page(violations, size, request.page_token, "GetCustomerAlert", bound_to, _CURSOR_OF_GAUGES)
    room = read_room(violations, request.max_answer_bytes)
    violations.raise_if_any()
    return selection, page, room


def read_group(violations: Violations, group: Sequence[gauge_pb2.GroupValue]) -> Group:
    """The keys and values of a filter, by key."""
    if len(group) > MAX_PROPERTIES:
        violations.add("group", f"there are {len(group)}: give at most {MAX_PROPERTIES}")
        return ()
    found: dict[str, str] = {}
    for index, one in enumerate(group):
        key = violations.identifier(f"group[{index}].key", one.key)
        if key in found:
            violations.add(f"group[{index}].key", f"{key!r} is given twice")
        found[key] = violations.text(f"group[{index}].value", one.value, max_length=MAX_PROPERTY_LENGTH)
    return tuple(sorted(found.items()))


def read_narrowed(
    violations: Violations, request: messages.ListCustomerAlertsRequest | messages.SummarizeCustomerAlertsRequest
) -> AlarmFilter:
    """The customers and alerts that a request is limited to."""
    return AlarmFilter(
        _ids(violations, "customer_ids", request.customer_ids), _ids(violations, "alert_ids", request.alert_ids)
    )


def _ids(violations: Violations, path: str, ids: Sequence[str]) -> tuple[str, ...]:
    if len(ids) > MAX_IDS:
        violations.add(path, f"there are {len(ids)}: give at most {MAX_IDS}")
        return ()
    return tuple(violations.identifier(f"{path}[{index}]", each) for index, each in enumerate(ids))


def read_statuses(
    violations: Violations, statuses: Sequence[customer_alert_pb2.CustomerAlertStatus.ValueType]
) -> tuple[CustomerAlertStatus | None, ...]:
    """The statuses of the filter; without a filter all of them, and None for alerts that are not evaluated."""
    for index, number in enumerate(statuses):
        if number not in _STATUS_OF:
            violations.add(f"statuses[{index}]", f"{number} is no status to filter by")
    if not statuses:
        return (*CustomerAlertStatus, None)
    return tuple(_STATUS_OF[number] for number in statuses if number in _STATUS_OF)


def after_entry(violations: Violations, page: Page) -> Cursor | None:
    """The entry after which a page of many customers begins; None at the beginning."""
    match page.after:
        case (int() as rest, datetime() as time, str() as customer_id, str() as gauge, str() as alert_id):
            try:
                gauge_id = None if rest else UUID(hex=gauge)
            except ValueError:  # a forged token
                violations.add("page_token", "not a token of this list")
                return None
            return Cursor(bool(rest), time, customer_id, gauge_id, alert_id)
    return None


def token_after(page: Page, cursor: Cursor | None) -> str:
    """The token of the page after an entry; empty if there is none."""
    if cursor is None:
        return ""
    gauge = "" if cursor.gauge_id is None else cursor.gauge_id.hex
    return page.token((int(cursor.is_other), cursor.time, cursor.customer_id, gauge, cursor.alert_id))


def canonical_numbers(statuses: Sequence[customer_alert_pb2.CustomerAlertStatus.ValueType]) -> list[str]:
    """The statuses of a filter in one form, to which a page token is bound."""
    return sorted(str(number) for number in set(statuses))
