"""AlertService: what changes alerts, as a whole or for one of those whom they cover."""

from datetime import timedelta

from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import Excluded
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import error_reason_pb2
from runtime.clock import Clock
from server.alert_service import Context, Visits, alert_not_found, customer_not_found
from server.errors import Aborted, AlreadyExists, ApiError, FailedPrecondition
from server.identity import current_author, current_organization
from server.ingest.rules import Rules
from server.ingest.visiting import visit_customers
from server.mapping.alert_changes import change_proto
from server.mapping.alert_updates import read_edit
from server.mapping.alerts import alert_proto
from server.mapping.gauges import customer_alert_proto
from server.paging import read_page
from server.validation import Violations
from store import alert_changes, alert_history, alerts, exclusions, organizations
from store.alert_changes import AlertArchived, AlertUnknown, EtagMismatch, NotArchived
from store.alert_history import ChangeKind
from store.alerts import AlertConflict
from store.customer_views import CustomerUnknown, CustomerView
from store.database import Connection, Database

_Target = messages.EnableAlertRequest | messages.DisableAlertRequest

_MAX_ETAG_LENGTH = 32  # characters


class AlertChangeHandlers:
    """The handlers of tidemark.v1.AlertService that change alerts."""

    def __init__(self, database: Database, clock: Clock, visits: Visits, grace: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._visits = visits
        self._grace = grace
        self._rules: dict[int, Rules] = {}

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
                raise _refusal(error, alert_id) from error
        self._visits.wake(organization_id)
        return messages.UpdateAlertResponse(alert=alert_proto(changed))

    async def EnableAlert(
        self, request: messages.EnableAlertRequest, context: Context
    ) -> messages.EnableAlertResponse:
        """Evaluates an alert again, as a whole or for one of those whom it covers."""
        alert_id, whom = _read_target(request)
        organization = current_organization()
        organization_id = organization.organization_id
        async with self._database.transaction() as connection:
            try:
                if whom is None:
                    definition = await alert_changes.enable(
                        connection, organization_id, alert_id, request.etag, current_author(), self._clock
                    )
                else:
                    definition = await self._changeable(connection, organization_id, alert_id, whom)
                    now = self._clock.now()
                    if await exclusions.lift(connection, organization_id, whom, now):
                        await self._note(connection, organization_id, ChangeKind.ENABLED, definition, whom)
                        await self._visit(connection, definition, whom.customer_id, changed_epoch=True)
            except (AlertUnknown, AlertArchived, EtagMismatch) as error:
                raise _refusal(error, alert_id) from error
        self._visits.wake(organization_id)
        return messages.EnableAlertResponse(alert=alert_proto(definition))

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
                    definition = await self._changeable(connection, organization_id, alert_id, whom)
                    if await exclusions.request(connection, organization_id, whom, self._clock.now()):
                        await self._note(connection, organization_id, ChangeKind.DISABLED, definition, whom)
            except (AlertUnknown, AlertArchived, EtagMismatch) as error:
                raise _refusal(error, alert_id) from error
        return messages.DisableAlertResponse(alert=alert_proto(definition))

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
                raise _refusal(error, alert_id) from error
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
                raise _refusal(error, alert_id) from error
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
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            try:
                await self._evaluated(connection, alert_id, customer_id)
            except AlertArchived as error:
                raise _refusal(error, alert_id) from error
        async with self._database.transaction() as connection:
            definition = await alerts.get(connection, organization_id, alert_id)
            assert definition is not None, "alerts are never deleted"
            await self._visit(connection, definition, customer_id, forgetting=True)
            whom = Excluded(customer_id, alert_id, None)
            await self._note(connection, organization_id, ChangeKind.RESET, definition, whom)
        async with self._database.transaction() as connection:
            view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
            found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        return messages.ResetCustomerAlertResponse(customer_alert=customer_alert_proto(found))

    async def _evaluated(self, connection: Connection, alert_id: str, customer_id: str) -> None:
        """Refuses a customer whom the alert does not cover, or for whom it is not evaluated; raises AlertArchived."""
        organization_id = current_organization().organization_id
        try:
            view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
        except CustomerUnknown as error:
            raise customer_not_found(customer_id) from error
        found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        if found.definition.state is DefinitionState.ARCHIVED:
            raise AlertArchived
        if found.status is None:
            raise FailedPrecondition(
                error_reason_pb2.ERROR_REASON_ALERT_NOT_EVALUATED,
                f"the alert {alert_id} is not evaluated for the customer {customer_id!r}: enable it first",
                metadata={"alert_id": alert_id, "customer_id": customer_id},
            )

    async def _visit(
        self,
        connection: Connection,
        definition: AlertDefinition,
        customer_id: str,
        *,
        changed_epoch: bool = False,
        forgetting: bool = False,
    ) -> None:
        """Evaluates an alert for one customer; changed_epoch: this transaction has raised the epoch itself."""
        organization = current_organization()
        epoch = await organizations.share(connection, organization.organization_id)
        rules = self._rules.setdefault(organization.organization_id, Rules(organization.organization_id))
        # The alerts are those of the epoch before. Under the new one they must not be remembered: the transaction
        # may yet be undone, and another one give that epoch to other rules.
        router = await rules.router(connection, epoch - 1 if changed_epoch else epoch)
        rule = router.alerts.get(definition.alert_id)
        if rule is not None:
            now = self._clock.now()
            await visit_customers(
                connection, organization, router, rule, [customer_id], now, self._grace, forgetting=forgetting
            )

    async def _changeable(
        self, connection: Connection, organization_id: int, alert_id: str, whom: Excluded
    ) -> AlertDefinition:
        """The alert, if it can be disabled and enabled for that customer or subscription."""
        definition = await alerts.get(connection, organization_id, alert_id)
        if definition is None:
            raise AlertUnknown
        if definition.state is DefinitionState.ARCHIVED:
            raise AlertArchived
        violations = Violations()
        if definition.scope.customer_id not in (None, whom.customer_id):
            violations.add("customer_id", f"the alert covers the customer {definition.scope.customer_id!r} only")
        if whom.subscription_id is not None and not definition.condition.condition_type.per_subscription:
            violations.add("subscription_id", "the alert measures customers, not subscriptions: leave it unset")
        violations.raise_if_any()
        return definition

    async def _note(
        self,
        connection: Connection,
        organization_id: int,
        kind: ChangeKind,
        definition: AlertDefinition,
        whom: Excluded,
    ) -> None:
        await alert_history.record(
            connection,
            organization_id,
            kind,
            definition,
            current_author(),
            self._clock.now(),
            customer_id=whom.customer_id,
            subscription_id=whom.subscription_id,
        )


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


def _refusal(error: Exception, alert_id: str) -> ApiError:
    """Why an alert cannot be changed."""
    metadata = {"alert_id": alert_id}
    if isinstance(error, EtagMismatch):
        return Aborted(
            error_reason_pb2.ERROR_REASON_ETAG_MISMATCH,
            f"the alert {alert_id} has the etag {error.version} by now: get it, and change that",
            metadata={**metadata, "etag": str(error.version)},
        )
    if isinstance(error, AlertArchived):
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_ALERT_ARCHIVED,
            f"the alert {alert_id} is archived, and stays as it is: create another",
            metadata=metadata,
        )
    if isinstance(error, NotArchived):
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_ALERT_NOT_ARCHIVED,
            f"the alert {alert_id} is not archived: archive it with release_uniqueness_key",
            metadata=metadata,
        )
    if isinstance(error, AlertConflict):
        return AlreadyExists(
            error_reason_pb2.ERROR_REASON_ALERT_EXISTS,
            f"the alert {error.alert_id} measures the same already, of which there may be only one",
            metadata={"alert_id": error.alert_id},
        )
    return alert_not_found(alert_id)
