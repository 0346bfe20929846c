"""AlertService: changes alerts, as a whole or for one customer or subscription."""

from engine.backfill.backfills import Backfills
from engine.changes.groups import ChangeGroups
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.rules.transaction import Transactions
from evaluator.definitions import AlertDefinition
from evaluator.exclusions import Excluded
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import warning_pb2
from runtime.clock import Clock
from runtime.turns import Slices
from server.alerts.batch_items import of_one_item
from server.alerts.customer_changes import CustomerChanges
from server.alerts.errors import alert_not_found
from server.alerts.open_changes import change_of
from server.alerts.updates import MAX_ETAG_LENGTH, Updates
from server.calls.context import Context
from server.calls.current_call import current_author, current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping.alert_history import change_message
from server.mapping.alerts import alert_message
from server.mapping.gauges import customer_alert_message
from store.alerts import alerts
from store.alerts import changes as alert_changes
from store.alerts import history as alert_history
from store.alerts.changes import Edit
from store.postgres.database import Database

_Target = messages.EnableAlertRequest | messages.DisableAlertRequest


class AlertChangeHandlers:
    """Serves the RPCs that change alerts, and the history of changes."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        changes: ChangeGroups,
        backfills: Backfills,
        evaluations: CustomerEvaluations,
        transactions: Transactions,
    ) -> None:
        self._database = database
        self._changes = changes
        self._backfills = backfills
        self._customers = CustomerChanges(database, clock, changes, evaluations, transactions)

    async def UpdateAlert(
        self, request: messages.UpdateAlertRequest, context: Context
    ) -> messages.UpdateAlertResponse:
        """Changes an alert in the fields of the mask, or creates it if it is missing and the request allows that."""
        organization_id, author = current_organization().organization_id, current_author()
        updates = Updates(organization_id, [request])
        with of_one_item():
            async with self._changes.transaction(organization_id) as connection:
                updated = await updates.plan(connection)
            if updated is None:
                updated = await self._changes.run(
                    organization_id,
                    lambda change: updates.make(change_of(change, author)),
                    keep=not request.validate_only,
                )
                self._wake(request)
        [one] = updated
        return messages.UpdateAlertResponse(
            alert=alert_message(one.definition), warnings=one.warnings, created=one.created
        )

    async def EnableAlert(
        self, request: messages.EnableAlertRequest, context: Context
    ) -> messages.EnableAlertResponse:
        """Evaluates an alert again, as a whole or for one customer or subscription."""
        alert_id, target = _read_target(request)
        if target is None:
            definition = await self._edited(alert_changes.enabling(alert_id, request.etag), request.validate_only)
            warnings = list[warning_pb2.Warning]()
        else:
            definition, warnings = await self._customers.enable(target, validate_only=request.validate_only)
        self._wake(request)
        return messages.EnableAlertResponse(alert=alert_message(definition), warnings=warnings)

    async def DisableAlert(
        self, request: messages.DisableAlertRequest, context: Context
    ) -> messages.DisableAlertResponse:
        """Stops the evaluation of an alert, as a whole or for one customer or subscription."""
        alert_id, target = _read_target(request)
        if target is None:
            definition = await self._edited(alert_changes.disabling(alert_id, request.etag), request.validate_only)
            warnings = list[warning_pb2.Warning]()
        else:
            definition, warnings = await self._customers.disable(target, validate_only=request.validate_only)
        return messages.DisableAlertResponse(alert=alert_message(definition), warnings=warnings)

    async def ArchiveAlert(
        self, request: messages.ArchiveAlertRequest, context: Context
    ) -> messages.ArchiveAlertResponse:
        """Archives an alert for ever. Releases its uniqueness key on request, with this call or a later one."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        etag = violations.text("etag", request.etag, max_length=MAX_ETAG_LENGTH)
        violations.raise_if_any()
        archiving = alert_changes.archiving(alert_id, etag, release_uniqueness_key=request.release_uniqueness_key)
        archived = await self._edited(archiving, request.validate_only)
        return messages.ArchiveAlertResponse(alert=alert_message(archived))

    async def ReleaseUniquenessKey(
        self, request: messages.ReleaseUniquenessKeyRequest, context: Context
    ) -> messages.ReleaseUniquenessKeyResponse:
        """Releases the uniqueness key of an archived alert, so that another alert can use it."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._changes.transaction(organization_id) as connection:
            # An archived alert stays archived, so this check holds.
            releasing = await alert_changes.releasing(connection, organization_id, alert_id)
        released = await self._edited(releasing, request.validate_only)
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
        answer = messages.ListAlertChangesResponse()
        page = await page.cut_into(answer.changes, map(change_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.change_number,))
        return answer

    async def ResetCustomerAlert(
        self, request: messages.ResetCustomerAlertRequest, context: Context
    ) -> messages.ResetCustomerAlertResponse:
        """Deletes the state of an alert for one customer, and evaluates the alert for it again."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        found = await self._customers.reset(alert_id, customer_id, validate_only=request.validate_only)
        slices = Slices(current_organization().organization_id)
        slices.begin_at_once()
        shown = await customer_alert_message(found, slices)
        return messages.ResetCustomerAlertResponse(customer_alert=shown)

    async def _edited(self, edit: Edit, validate_only: bool) -> AlertDefinition:
        """The alert after the edit; without the lock if nothing changes. Raises what refuses the edit."""
        organization_id, author = current_organization().organization_id, current_author()
        with of_one_item():
            async with self._changes.transaction(organization_id) as connection:
                edited = await alert_changes.without_effect(connection, organization_id, [edit])
            if edited is None:
                edited = await self._changes.run(
                    organization_id,
                    lambda change: alert_changes.edit_many(change_of(change, author), [edit]),
                    keep=not validate_only,
                )
        return edited[0]

    def _wake(self, request: messages.UpdateAlertRequest | messages.EnableAlertRequest) -> None:
        if not request.validate_only:
            self._backfills.wake(current_organization().organization_id)


def _read_target(request: _Target) -> tuple[str, Excluded | None]:
    """The alert, and the one customer or subscription of the request; None for the alert as a whole."""
    violations = Violations()
    alert_id = violations.identifier("alert_id", request.alert_id)
    customer_id = violations.identifier("customer_id", request.customer_id, required=False)
    subscription_id = violations.identifier("subscription_id", request.subscription_id, required=False)
    violations.text("etag", request.etag, max_length=MAX_ETAG_LENGTH)
    if subscription_id and not customer_id:
        violations.add("customer_id", "it is required with subscription_id")
    if customer_id and request.etag:
        violations.add("etag", "the alert as a whole does not change: leave it unset with customer_id")
    violations.raise_if_any()
    return alert_id, Excluded(customer_id, alert_id, subscription_id or None) if customer_id else None
