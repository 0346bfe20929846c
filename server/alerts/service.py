"""AlertService: what creates alerts, and what shows them and their state."""

from datetime import datetime
from typing import Any, Protocol

import grpc

from evaluator.definitions import MAX_SPEND_ALERTS, DefinitionState
from generated.tidemark.v1 import alert_pb2, error_reason_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import Clock
from runtime.turns import Slices
from server.alerts.customer_alert_lists import CustomerAlertListHandlers
from server.calls.errors import AlreadyExists, ApiError, FailedPrecondition, NotFound
from server.calls.identity import current_author, current_organization
from server.calls.paging import Page, read_page
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alerts import alert_proto, read_condition_types, read_new_alert, read_states
from server.mapping.gauges import customer_alert_proto
from store.accounts import known_ids
from store.alerts import alerts
from store.alerts.alerts import AlertConflict, Filters, NewAlert, Rule, TooManyAlerts
from store.identity import idempotent_answers as requests
from store.identity.idempotent_answers import RequestIdReused
from store.postgres.database import Database
from store.views.customer_views import CustomerUnknown, CustomerView

MAX_REQUEST_ID_LENGTH = 128  # characters
MAX_UNIQUENESS_KEY_LENGTH = 128  # characters

# What ListCustomerAlerts shows unless it is asked for other states.
_NOT_ARCHIVED = (DefinitionState.ACTIVE, DefinitionState.DISABLED)

Context = grpc.aio.ServicerContext[Any, Any]


class Backfills(Protocol):
    """Evaluates new and changed alerts on what exists already."""

    def wake(self, organization_id: int) -> None:
        """Notes that an alert of that organization waits to be evaluated; returns at once."""


class AlertHandlers(CustomerAlertListHandlers):
    """The handlers of tidemark.v1.AlertService that create alerts, and show them and their state."""

    def __init__(self, database: Database, clock: Clock, backfills: Backfills) -> None:
        super().__init__(database, clock)
        self._backfills = backfills

    async def CreateAlert(
        self, request: messages.CreateAlertRequest, context: Context
    ) -> messages.CreateAlertResponse:
        """Creates an alert, or repeats the answer that the same request got before."""
        violations = Violations()
        violations.text("request_id", request.request_id, max_length=MAX_REQUEST_ID_LENGTH)
        new = read_new_alert(violations, request)
        organization_id = current_organization().organization_id
        payload = request.SerializeToString(deterministic=True)
        async with self._database.transaction() as connection:
            replay = (connection, organization_id, "CreateAlert", request.request_id, payload)
            try:
                if request.request_id and (first := await requests.first_response(*replay)) is not None:
                    return messages.CreateAlertResponse.FromString(first)
                # Before the alert is written: from then on ingest waits for the end of the transaction.
                named = unknown_ids.of_alert(new.scope, new.condition, new.thresholds)
                unknown = await known_ids.unknown(connection, organization_id, named.ids)
                created = await alerts.create(connection, organization_id, new, current_author(), self._clock)
            except (AlertConflict, TooManyAlerts, RequestIdReused) as error:
                raise _refusal(error, request, new) from error
            response = messages.CreateAlertResponse(
                alert=alert_proto(created), warnings=unknown_ids.warnings(named, unknown)
            )
            if request.request_id:
                await requests.remember(*replay, response.SerializeToString(), created.create_time)
        self._backfills.wake(organization_id)
        return response

    async def GetAlert(self, request: messages.GetAlertRequest, context: Context) -> messages.GetAlertResponse:
        """One alert, archived or not."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            found = await alerts.get(connection, current_organization().organization_id, alert_id)
        if found is None:
            raise alert_not_found(alert_id)
        return messages.GetAlertResponse(alert=alert_proto(found))

    async def ListAlerts(self, request: messages.ListAlertsRequest, context: Context) -> messages.ListAlertsResponse:
        """A page of alerts, the oldest first."""
        violations = Violations()
        filters = Filters(
            customer_id=violations.identifier("customer_id", request.customer_id, required=False) or None,
            plan_id=violations.identifier("plan_id", request.plan_id, required=False) or None,
            subscription_id=violations.identifier("subscription_id", request.subscription_id, required=False) or None,
            uniqueness_key=violations.text(
                "uniqueness_key", request.uniqueness_key, max_length=MAX_UNIQUENESS_KEY_LENGTH
            )
            or None,
            condition_types=read_condition_types(violations, "condition_types", request.condition_types),
            states=read_states(violations, "states", request.states),
        )
        page = read_page(
            violations, request.page_size, request.page_token, "ListAlerts", _digestible(filters), _CURSOR
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await alerts.list_page(
                connection,
                current_organization().organization_id,
                filters,
                after=_after(page),
                limit=page.limit,
            )
        shown, slices = list[alert_pb2.Alert](), Slices(current_organization().organization_id)
        for row in page.shown(rows):
            await slices.pause()
            shown.append(alert_proto(row))
        page = page.cut(shown)
        return messages.ListAlertsResponse(
            alerts=page.shown(shown),
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.alert_id)),
        )

    async def GetCustomerAlert(
        self, request: messages.GetCustomerAlertRequest, context: Context
    ) -> messages.GetCustomerAlertResponse:
        """What an alert knows of one customer."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            try:
                view = await CustomerView.open(
                    connection, current_organization().organization_id, customer_id, self._clock.now()
                )
            except CustomerUnknown as error:
                raise customer_not_found(customer_id) from error
            found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        return messages.GetCustomerAlertResponse(customer_alert=customer_alert_proto(found))

    async def ListCustomerAlerts(
        self, request: messages.ListCustomerAlertsRequest, context: Context
    ) -> messages.ListCustomerAlertsResponse:
        """A page of what each alert that covers a customer knows of it, the oldest first; or of many customers."""
        if not request.customer_id:
            return await self._list_of_many(request)
        violations = Violations()
        for path in ("customer_ids", "alert_ids", "statuses"):
            if getattr(request, path):
                violations.add(path, "it narrows lists of many customers: leave out customer_id")
        customer_id = violations.identifier("customer_id", request.customer_id)
        states = read_states(violations, "states", request.states) or _NOT_ARCHIVED
        bound_to = (customer_id, *sorted(set(states)))
        page = read_page(violations, request.page_size, request.page_token, "ListCustomerAlerts", bound_to, _CURSOR)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            try:
                view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
            except CustomerUnknown as error:
                raise customer_not_found(customer_id) from error
            definitions, found = await view.list_page(states, after=_after(page), limit=page.limit)
        page, shown, slices = page.up_to(len(found)), list[alert_pb2.CustomerAlert](), Slices(organization_id)
        for row in page.shown(found):
            await slices.pause()
            shown.append(customer_alert_proto(row))
        page = page.cut(shown)
        return messages.ListCustomerAlertsResponse(
            customer_alerts=page.shown(shown),
            next_page_token=page.next_token(definitions, lambda row: (row.create_time, row.alert_id)),
        )


_CURSOR = (datetime, str)  # create_time and id of the last alert on the page before


def _after(page: Page) -> tuple[datetime, str] | None:
    match page.after:
        case (datetime() as create_time, str() as alert_id):
            return create_time, alert_id
    return None


def _digestible(filters: Filters) -> tuple[str, ...]:
    """The filters in a form in which the same ones are equal, whatever their order."""
    return (
        filters.customer_id or "",
        filters.plan_id or "",
        filters.subscription_id or "",
        filters.uniqueness_key or "",
        ",".join(sorted(set(filters.condition_types))),
        ",".join(sorted(set(filters.states))),
    )


def _refusal(
    error: AlertConflict | TooManyAlerts | RequestIdReused, request: messages.CreateAlertRequest, new: NewAlert
) -> ApiError:
    """Why the alert cannot be created as things stand."""
    if isinstance(error, RequestIdReused):
        return AlreadyExists(
            error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED,
            f"the request id {request.request_id!r} was used for another request: take a new one",
            metadata={"request_id": request.request_id},
        )
    if isinstance(error, TooManyAlerts):
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_TOO_MANY_ALERTS,
            f"a {new.scope.kind.lower()} has at most {MAX_SPEND_ALERTS} spend alerts: archive one first",
            metadata={"limit": str(MAX_SPEND_ALERTS)},
        )
    if error.rule is Rule.UNIQUENESS_KEY:
        return AlreadyExists(
            error_reason_pb2.ERROR_REASON_UNIQUENESS_KEY_TAKEN,
            f"the alert {error.alert_id} holds this uniqueness key: use another,"
            " or archive that alert with release_uniqueness_key",
            metadata={"uniqueness_key": new.uniqueness_key or "", "alert_id": error.alert_id},
        )
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_ALERT_EXISTS,
        f"the {new.scope.kind.lower()} has the alert {error.alert_id} already, of which there may be only one",
        metadata={"alert_id": error.alert_id},
    )


def alert_not_found(alert_id: str, covering: str | None = None) -> NotFound:
    such = "such alert" if covering is None else f"such alert that covers the customer {covering!r}"
    return NotFound(
        error_reason_pb2.ERROR_REASON_ALERT_NOT_FOUND,
        f"there is no {such}: {alert_id!r}",
        metadata={"alert_id": alert_id},
    )


def customer_not_found(customer_id: str) -> NotFound:
    return NotFound(
        error_reason_pb2.ERROR_REASON_CUSTOMER_NOT_FOUND,
        f"there is no customer {customer_id!r}: nobody put it and no usage named it",
        metadata={"customer_id": customer_id},
    )
