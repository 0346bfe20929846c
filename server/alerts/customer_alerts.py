"""AlertService: shows the state of alerts for one customer, or for many with the alerts in alarm first."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from evaluator.definitions import DefinitionState
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import (
    customer_alert_pb2,
)
from runtime.clock import Clock
from runtime.turns import Slices
from server.alerts.errors import alert_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TIME, Page, after_time_and_id, read_page
from server.calls.validation import Violations
from server.mapping.alerts import read_states
from server.mapping.gauges import STATUSES, customer_alert_message
from store.postgres.database import Database
from store.views import alarms, customer_alert_lists
from store.views.alarms import AlarmFilter
from store.views.customer_alert_lists import Cursor, ListFilter
from store.views.customer_alerts import CustomerAlertStatus
from store.views.customer_views import CustomerView

MAX_IDS = 100  # of one filter

# The states of alerts that lists show when the request names none.
_NOT_ARCHIVED = (DefinitionState.ACTIVE, DefinitionState.DISABLED)
_STATUS_OF = {number: status for status, number in STATUSES.items() if number}

# In a list of many customers, entries in alarm come first, and the rest after them. The cursor: 1 for the rest and 0
# otherwise, time, customer, gauge (empty for the rest), alert.
_CURSOR_OF_MANY = (int, datetime, str, str, str)


class CustomerAlertHandlers:
    """Serves the RPCs that show the state of alerts for customers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def GetCustomerAlert(
        self, request: messages.GetCustomerAlertRequest, context: Context
    ) -> messages.GetCustomerAlertResponse:
        """The state of one alert for one customer."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            view = await CustomerView.open(
                connection, current_organization().organization_id, customer_id, self._clock.now()
            )
            found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        return messages.GetCustomerAlertResponse(customer_alert=customer_alert_message(found))

    async def ListCustomerAlerts(
        self, request: messages.ListCustomerAlertsRequest, context: Context
    ) -> messages.ListCustomerAlertsResponse:
        """A page of the alerts that cover one customer, the oldest first; or of the alerts of many customers."""
        if not request.customer_id:
            return await self._list_of_many(request)
        violations = Violations()
        for path in ("customer_ids", "alert_ids", "statuses"):
            if getattr(request, path):
                violations.add(path, "it is a filter for many customers: leave it unset, or leave customer_id unset")
        customer_id = violations.identifier("customer_id", request.customer_id)
        states = read_states(violations, "states", request.states) or _NOT_ARCHIVED
        bound_to = (customer_id, *sorted(set(states)))
        page = read_page(violations, request.page_size, request.page_token, "ListCustomerAlerts", bound_to, BY_TIME)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
            definitions, found = await view.list_page(states, after=after_time_and_id(page), limit=page.limit)
        page, shown, slices = (
            page.up_to(len(found)),
            list[customer_alert_pb2.CustomerAlert](),
            Slices(organization_id),
        )
        for row in page.shown(found):
            await slices.pause()
            shown.append(customer_alert_message(row))
        page = page.cut(shown)
        return messages.ListCustomerAlertsResponse(
            customer_alerts=page.shown(shown),
            next_page_token=page.next_token(definitions, lambda row: (row.create_time, row.alert_id)),
        )

    async def SummarizeCustomerAlerts(
        self, request: messages.SummarizeCustomerAlertsRequest, context: Context
    ) -> messages.SummarizeCustomerAlertsResponse:
        """The number of customers in alarm, for each alert."""
        violations = Violations()
        narrowed = _narrowed(violations, request)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            found = await alarms.totals(
                connection, current_organization().organization_id, narrowed, self._clock.now()
            )
        return messages.SummarizeCustomerAlertsResponse(
            alerts=[
                customer_alert_pb2.CustomerAlertSummary(
                    alert_id=one.alert_id,
                    alert_display_name=one.name,
                    gauge_count=one.gauge_count,
                    customer_count=one.customer_count,
                    evaluating=one.evaluating,
                )
                for one in found.alerts
            ],
            customer_count=found.customer_count,
            truncated=found.truncated,
        )

    async def _list_of_many(self, request: messages.ListCustomerAlertsRequest) -> messages.ListCustomerAlertsResponse:
        violations = Violations()
        narrowed = _narrowed(violations, request)
        states = read_states(violations, "states", request.states) or _NOT_ARCHIVED
        statuses = _statuses(violations, request.statuses)
        bound_to = (
            "many",
            "\n".join(sorted(set(narrowed.customer_ids))),
            "\n".join(sorted(set(narrowed.alert_ids))),
            ",".join(sorted(set(states))),
            ",".join(sorted(str(number) for number in set(request.statuses))),
        )
        page = read_page(
            violations, request.page_size, request.page_token, "ListCustomerAlerts", bound_to, _CURSOR_OF_MANY
        )
        after = _after_entry(violations, page)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            entries, following = await customer_alert_lists.page(
                connection,
                current_organization().organization_id,
                ListFilter(narrowed, states, statuses),
                self._clock.now(),
                after=after,
                limit=page.size,
            )
        shown = [customer_alert_message(entry.found) for entry in entries]
        fitting = page.cut(shown).size
        if fitting < len(shown):
            following = entries[fitting - 1].cursor
        return messages.ListCustomerAlertsResponse(
            customer_alerts=shown[:fitting], next_page_token=_token(page, following)
        )


def _narrowed(
    violations: Violations, request: messages.ListCustomerAlertsRequest | messages.SummarizeCustomerAlertsRequest
) -> AlarmFilter:
    return AlarmFilter(
        _ids(violations, "customer_ids", request.customer_ids), _ids(violations, "alert_ids", request.alert_ids)
    )


def _ids(violations: Violations, path: str, ids: Sequence[str]) -> tuple[str, ...]:
    if len(ids) > MAX_IDS:
        violations.add(path, f"there are {len(ids)}: give at most {MAX_IDS}")
        return ()
    return tuple(violations.identifier(f"{path}[{index}]", each) for index, each in enumerate(ids))


def _statuses(
    violations: Violations, statuses: Sequence[customer_alert_pb2.CustomerAlertStatus.ValueType]
) -> tuple[CustomerAlertStatus | None, ...]:
    """The statuses of the filter; without a filter all of them, and None for alerts that are not evaluated."""
    for index, number in enumerate(statuses):
        if number not in _STATUS_OF:
            violations.add(f"statuses[{index}]", f"{number} is no status to filter by")
    if not statuses:
        return (*CustomerAlertStatus, None)
    return tuple(_STATUS_OF[number] for number in statuses if number in _STATUS_OF)


def _after_entry(violations: Violations, page: Page) -> Cursor | None:
    match page.after:
        case (int() as rest, datetime() as time, str() as customer_id, str() as gauge, str() as alert_id):
            try:
                gauge_id = None if rest else UUID(hex=gauge)
            except ValueError:  # a forged token
                violations.add("page_token", "not a token of this list")
                return None
            return Cursor(bool(rest), time, customer_id, gauge_id, alert_id)
    return None


def _token(page: Page, cursor: Cursor | None) -> str:
    if cursor is None:
        return ""
    gauge = "" if cursor.gauge_id is None else cursor.gauge_id.hex
    return page.token((int(cursor.is_other), cursor.time, cursor.customer_id, gauge, cursor.alert_id))
