"""AlertService: what changes alerts, as a whole or for one of those whom they cover."""

from datetime import timedelta

from engine.rules.registry import RulesRegistry
from evaluator.exclusions import Excluded
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import warning_pb2
from runtime.clock import Clock
from server.alerts.customer_changes import CustomerChanges
from server.alerts.refusals import refusal
from server.alerts.service import Backfills, Context, alert_not_found
from server.calls.identity import current_author, current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alert_changes import change_proto
from server.mapping.alert_updates import read_edit
from server.mapping.alerts import alert_proto
from server.mapping.gauges import customer_alert_proto
from store.accounts import known_ids
from store.alerts import alerts
from store.alerts import changes as alert_changes
from store.alerts import history as alert_history
from store.alerts.alerts import AlertConflict
from store.alerts.changes import AlertArchived, AlertUnknown, EtagMismatch, NotArchived
from store.postgres.database import Connection, Database

_Target = messages.EnableAlertRequest | messages.DisableAlertRequest

_MAX_ETAG_LENGTH = 32  # characters


class AlertChangeHandlers:
    """The handlers of tidemark.v1.AlertService that change alerts."""

    def __init__(
        self, database: Database, clock: Clock, backfills: Backfills, grace: timedelta, rules: RulesRegistry
    ) -> None:
        self._database = database
        self._clock = clock
        self._backfills = backfills
        self._customers = CustomerChanges(database, clock, grace, rules)

    async def UpdateAlert(
        self, request: messages.UpdateAlertRequest, context: Context
    ) -> messages.UpdateAlertResponse:
        """Changes an alert's name, its thresholds, and what its condition lets be changed."""
        violations = Violations()
        alert_id = violations.identifier("alert.alert_id", request.alert.alert_id)
        etag = violations.text("alert.etag", request.alert.etag, max_length=_MAX_ETAG_LENGTH)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            try:
                changed = await alert_changes.edit(
                    connection,
                    organization_id,
                    alert_id,
                    etag,
                    lambda stored: read_edit(stored, request),
                    current_author(),
                    self._clock,
                )
            except (AlertUnknown, AlertArchived, EtagMismatch, AlertConflict) as error:
                raise refusal(error, alert_id) from error
            named = unknown_ids.of_alert(changed.scope, changed.condition, changed.thresholds)
            unknown = await known_ids.unknown(connection, organization_id, named.ids)
        self._backfills.wake(organization_id)
        return messages.UpdateAlertResponse(alert=alert_proto(changed), warnings=unknown_ids.warnings(named, unknown))

    async def EnableAlert(
        self, request: messages.EnableAlertRequest, context: Context
    ) -> messages.EnableAlertResponse:
        """Evaluates an alert again, as a whole or for one of those whom it covers."""
        alert_id, whom = _read_target(request)
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            try:
                if whom is None:
                    definition = await alert_changes.enable(
                        connection, organization_id, alert_id, request.etag, current_author(), self._clock
                    )
                else:
                    definition = await self._customers.enable(connection, whom)
            except (AlertUnknown, AlertArchived, EtagMismatch) as error:
                raise refusal(error, alert_id) from error
            warnings = await _warnings(connection, organization_id, whom)
        self._backfills.wake(organization_id)
        return messages.EnableAlertResponse(alert=alert_proto(definition), warnings=warnings)

    async def DisableAlert(
        self, request: messages.DisableAlertRequest, context: Context
    ) -> messages.DisableAlertResponse:
        """Stops the evaluation of an alert, as a whole or for one of those whom it covers."""
        alert_id, whom = _read_target(request)
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            try:
                if whom is None:
                    definition = await alert_changes.disable(
                        connection, organization_id, alert_id, request.etag, current_author(), self._clock
                    )
                else:
                    definition = await self._customers.disable(connection, whom)
            except (AlertUnknown, AlertArchived, EtagMismatch) as error:
                raise refusal(error, alert_id) from error
            warnings = await _warnings(connection, organization_id, whom)
        return messages.DisableAlertResponse(alert=alert_proto(definition), warnings=warnings)

    async def ArchiveAlert(
        self, request: messages.ArchiveAlertRequest, context: Context
    ) -> messages.ArchiveAlertResponse:
        """Ends an alert for good, and may release its uniqueness key, now or later."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        etag = violations.text("etag", request.etag, max_length=_MAX_ETAG_LENGTH)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            try:
                archived = await alert_changes.archive(
                    connection,
                    current_organization().organization_id,
                    alert_id,
                    etag,
                    current_author(),
                    self._clock,
                    release_uniqueness_key=request.release_uniqueness_key,
                )
            except (AlertUnknown, EtagMismatch) as error:
                raise refusal(error, alert_id) from error
        return messages.ArchiveAlertResponse(alert=alert_proto(archived))

    async def ReleaseUniquenessKey(
        self, request: messages.ReleaseUniquenessKeyRequest, context: Context
    ) -> messages.ReleaseUniquenessKeyResponse:
        """Lets others use the uniqueness key of an archived alert."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            try:
                released = await alert_changes.release_uniqueness_key(
                    connection, current_organization().organization_id, alert_id, current_author(), self._clock
                )
            except (AlertUnknown, NotArchived) as error:
                raise refusal(error, alert_id) from error
        return messages.ReleaseUniquenessKeyResponse(alert=alert_proto(released))

    async def ListAlertChanges(
        self, request: messages.ListAlertChangesRequest, context: Context
    ) -> messages.ListAlertChangesResponse:
        """A page of the changes of an alert, the newest first."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        page = read_page(violations, request.page_size, request.page_token, "ListAlertChanges", (alert_id,), (int,))
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            definition = await alerts.get(connection, organization_id, alert_id)
            if definition is None:
                raise alert_not_found(alert_id)
            after = None if page.after is None else int(str(page.after[0]))
            rows = await alert_history.list_page(
                connection, organization_id, definition, after=after, limit=page.limit
            )
        shown = [change_proto(row) for row in page.shown(rows)]
        page = page.cut(shown)
        return messages.ListAlertChangesResponse(
            changes=page.shown(shown), next_page_token=page.next_token(rows, lambda row: (row.change_number,))
        )

    async def ResetCustomerAlert(
        self, request: messages.ResetCustomerAlertRequest, context: Context
    ) -> messages.ResetCustomerAlertResponse:
        """Forgets what an alert remembers of a customer, and evaluates it afresh."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        try:
            found = await self._customers.reset(alert_id, customer_id)
        except AlertArchived as error:
            raise refusal(error, alert_id) from error
        return messages.ResetCustomerAlertResponse(customer_alert=customer_alert_proto(found))


async def _warnings(connection: Connection, organization_id: int, whom: Excluded | None) -> list[warning_pb2.Warning]:
    """What is not known of that for which alone an alert is enabled or disabled."""
    if whom is None:
        return []
    named = unknown_ids.of_target(whom)
    return unknown_ids.warnings(named, await known_ids.unknown(connection, organization_id, named.ids))


def _read_target(request: _Target) -> tuple[str, Excluded | None]:
    """The alert, and for whom alone it is enabled or disabled."""
    violations = Violations()
    alert_id = violations.identifier("alert_id", request.alert_id)
    customer_id = violations.identifier("customer_id", request.customer_id, required=False)
    subscription_id = violations.identifier("subscription_id", request.subscription_id, required=False)
    violations.text("etag", request.etag, max_length=_MAX_ETAG_LENGTH)
    if subscription_id and not customer_id:
        violations.add("customer_id", "it is required with subscription_id")
    if customer_id and request.etag:
        violations.add("etag", "the alert as a whole does not change: leave it unset with customer_id")
    violations.raise_if_any()
    return alert_id, Excluded(customer_id, alert_id, subscription_id or None) if customer_id else None
