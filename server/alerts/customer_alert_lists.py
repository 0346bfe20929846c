"""AlertService's view of all customers: what is in alarm first, page by page, and how much of it there is."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import grpc

from evaluator.definitions import DefinitionState
from generated.tidemark.v1 import alert_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import Clock
from server.calls.identity import current_organization
from server.calls.paging import Page, read_page
from server.calls.validation import Violations
from server.mapping.alerts import read_states
from server.mapping.gauges import STATUSES, customer_alert_message
from store.postgres.database import Database
from store.views import alarms, customer_alert_lists
from store.views.alarms import AlarmFilter
from store.views.customer_alert_lists import Cursor, ListFilter
from store.views.customer_alerts import CustomerAlertStatus

MAX_IDS = 100  # of one filter

_NOT_ARCHIVED = (DefinitionState.ACTIVE, DefinitionState.DISABLED)
_STATUS_OF = {number: status for status, number in STATUSES.items() if number}

# Whether it is of the rest (1), its time, customer, gauge (empty for the rest) and alert.
_CURSOR = (int, datetime, str, str, str)

Context = grpc.aio.ServicerContext[Any, Any]


class CustomerAlertListHandlers:
    """The handlers of tidemark.v1.AlertService that are about many customers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def _list_of_many(self, request: messages.ListCustomerAlertsRequest) -> messages.ListCustomerAlertsResponse:
        """A page of what alerts know of many customers: ListCustomerAlerts without a customer."""
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
        page = read_page(violations, request.page_size, request.page_token, "ListCustomerAlerts", bound_to, _CURSOR)
        after = _after(violations, page)
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

    async def SummarizeCustomerAlerts(
        self, request: messages.SummarizeCustomerAlertsRequest, context: Context
    ) -> messages.SummarizeCustomerAlertsResponse:
        """How many customers are in alarm, for each alert."""
        violations = Violations()
        narrowed = _narrowed(violations, request)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            found = await alarms.totals(
                connection, current_organization().organization_id, narrowed, self._clock.now()
            )
        return messages.SummarizeCustomerAlertsResponse(
            alerts=[
                messages.CustomerAlertSummary(
                    alert_id=one.alert_id,
                    alert_name=one.name,
                    gauge_count=one.gauge_count,
                    customer_count=one.customer_count,
                    evaluating=one.evaluating,
                )
                for one in found.alerts
            ],
            customer_count=found.customer_count,
            truncated=found.truncated,
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
    violations: Violations, statuses: Sequence[alert_pb2.CustomerAlertStatus.ValueType]
) -> tuple[CustomerAlertStatus | None, ...]:
    """The filter; everything, also what is not evaluated, where it is empty."""
    for index, number in enumerate(statuses):
        if number not in _STATUS_OF:
            violations.add(f"statuses[{index}]", f"{number} is no status to ask for")
    if not statuses:
        return (*CustomerAlertStatus, None)
    return tuple(_STATUS_OF[number] for number in statuses if number in _STATUS_OF)


def _after(violations: Violations, page: Page) -> Cursor | None:
    match page.after:
        case (int() as rest, datetime() as time, str() as customer_id, str() as gauge, str() as alert_id):
            try:
                gauge_id = None if rest else UUID(hex=gauge)
            except ValueError:  # a token of somebody's own making
                violations.add("page_token", "not a token of this list")
                return None
            return Cursor(bool(rest), time, customer_id, gauge_id, alert_id)
    return None


def _token(page: Page, cursor: Cursor | None) -> str:
    if cursor is None:
        return ""
    gauge = "" if cursor.gauge_id is None else cursor.gauge_id.hex
    values = int(cursor.is_other), cursor.time, cursor.customer_id, gauge, cursor.alert_id
    return page.token(values)
