"""AlertService: changes alerts, as a whole or for one customer or subscription."""

from datetime import timedelta

from engine.backfill.backfills import Backfills
from engine.rules.registry import RulesRegistry
from evaluator.exclusions import Excluded
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import warning_pb2
from runtime.clock import Clock
from server.alerts.customer_changes import CustomerChanges
from server.alerts.errors import alert_not_found
from server.calls.context import Context
from server.calls.current_call import current_author, current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alert_history import change_message
from server.mapping.alert_updates import read_patch
from server.mapping.alerts import alert_message, refuse_large
from server.mapping.gauges import customer_alert_message
from store.accounts import known_ids
from store.alerts import alerts
from store.alerts import changes as alert_changes
from store.alerts import history as alert_history
from store.postgres.database import Connection, Database

_Target = messages.EnableAlertRequest | messages.DisableAlertRequest

_MAX_ETAG_LENGTH = 32  # characters


class AlertChangeHandlers:
    """Serves the RPCs that change alerts, and the history of changes."""

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
        """Changes an alert's display name, its thresholds, and the parts of its condition that can change."""
        violations = Violations()
        alert_id = violations.identifier("alert.alert_id", request.alert.alert_id)
        etag = violations.text("alert.etag", request.alert.etag, max_length=_MAX_ETAG_LENGTH)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            seen = await alert_changes.changeable(connection, organization_id, alert_id, etag)
            patch = read_patch(seen, request)
            # Before the alert is written: from then on ingest waits for the end of the transaction.
            named = unknown_ids.of_alert(seen.scope, seen.condition, patch.apply(seen).thresholds)
            unknown = await known_ids.unknown(connection, organization_id, named.ids)
            changed = await alert_changes.edit(
                connection, organization_id, seen, etag, patch, current_author(), self._clock
            )
            if changed.version > seen.version + 1:
                # Another change was committed after `read_patch` checked the size, and the two add up.
                refuse_large(violations, changed)
                violations.raise_if_any()
        self._backfills.wake(organization_id)
        return messages.UpdateAlertResponse(
            alert=alert_message(changed), warnings=unknown_ids.warnings(named, unknown)
        )

    async def EnableAlert(
        self, request: messages.EnableAlertRequest, context: Context
    ) -> messages.EnableAlertResponse:
        """Evaluates an alert again, as a whole or for one customer or subscription."""
        alert_id, target = _read_target(request)
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            if target is None:
                definition = await alert_changes.enable(
                    connection, organization_id, alert_id, request.etag, current_author(), self._clock
                )
            else:
                definition = await self._customers.enable(connection, target)
            warnings = await _warnings(connection, organization_id, target)
        self._backfills.wake(organization_id)
        return messages.EnableAlertResponse(alert=alert_message(definition), warnings=warnings)

    async def DisableAlert(
        self, request: messages.DisableAlertRequest, context: Context
    ) -> messages.DisableAlertResponse:
        """Stops the evaluation of an alert, as a whole or for one customer or subscription."""
        alert_id, target = _read_target(request)
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            if target is None:
                definition = await alert_changes.disable(
                    connection, organization_id, alert_id, request.etag, current_author(), self._clock
                )
            else:
                definition = await self._customers.disable(connection, target)
            warnings = await _warnings(connection, organization_id, target)
        return messages.DisableAlertResponse(alert=alert_message(definition), warnings=warnings)

    async def ArchiveAlert(
        self, request: messages.ArchiveAlertRequest, context: Context
    ) -> messages.ArchiveAlertResponse:
        """Archives an alert for ever. Releases its uniqueness key on request, with this call or a later one."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        etag = violations.text("etag", request.etag, max_length=_MAX_ETAG_LENGTH)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            archived = await alert_changes.archive(
                connection,
                current_organization().organization_id,
                alert_id,
                etag,
                current_author(),
                self._clock,
                release_uniqueness_key=request.release_uniqueness_key,
            )
        return messages.ArchiveAlertResponse(alert=alert_message(archived))

    async def ReleaseUniquenessKey(
        self, request: messages.ReleaseUniquenessKeyRequest, context: Context
    ) -> messages.ReleaseUniquenessKeyResponse:
        """Releases the uniqueness key of an archived alert, so that another alert can use it."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            released = await alert_changes.release_uniqueness_key(
                connection, current_organization().organization_id, alert_id, current_author(), self._clock
            )
        return messages.ReleaseUniquenessKeyResponse(alert=alert_message(released))

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
        shown = [change_message(row) for row in page.shown(rows)]
        page = page.cut(shown)
        return messages.ListAlertChangesResponse(
            changes=page.shown(shown), next_page_token=page.next_token(rows, lambda row: (row.change_number,))
        )

    async def ResetCustomerAlert(
        self, request: messages.ResetCustomerAlertRequest, context: Context
    ) -> messages.ResetCustomerAlertResponse:
        """Deletes the state of an alert for one customer, and evaluates the alert for it again."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        found = await self._customers.reset(alert_id, customer_id)
        return messages.ResetCustomerAlertResponse(customer_alert=customer_alert_message(found))


async def _warnings(
    connection: Connection, organization_id: int, target: Excluded | None
) -> list[warning_pb2.Warning]:
    """A warning for each id in `target` that no fact and no usage has named."""
    if target is None:
        return []
    named = unknown_ids.of_excluded(target)
    return unknown_ids.warnings(named, await known_ids.unknown(connection, organization_id, named.ids))


def _read_target(request: _Target) -> tuple[str, Excluded | None]:
    """The alert, and the one customer or subscription of the request; None for the alert as a whole."""
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
