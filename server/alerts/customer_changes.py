"""Changes of an alert for one customer or subscription: disable, enable, reset."""

from datetime import datetime

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.facts.one_alert import evaluate_alert
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.rules.transaction import Transactions
from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import Excluded, ExclusionReason
from generated.tidemark.v1 import error_reason_pb2, warning_pb2
from runtime.clock import Clock
from server.alerts.errors import alert_not_found
from server.alerts.id_warnings import warnings_of
from server.calls.audit_trail import record
from server.calls.current_call import current_author, current_cause, current_organization
from server.calls.errors import FailedPrecondition
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alert_exclusions import exclusion_message
from server.mapping.audited_resources import of_alert
from store.accounts import customer_evaluations
from store.alerts import alerts, disabled_notices, exclusions
from store.alerts import history as alert_history
from store.alerts.changes import AlertArchived, AlertUnknown
from store.alerts.exclusions import StoredExclusion
from store.alerts.history import ChangeKind
from store.audit.entries import NewEntry
from store.erasures import jobs as erasures
from store.postgres.database import Connection, Database
from store.views.customer_alerts import CustomerAlert
from store.views.customer_views import CustomerView


class CustomerChanges:
    """Changes alerts of the current organization for one customer or subscription, and notes it in the history."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        changes: ChangeGroups,
        evaluations: CustomerEvaluations,
        transactions: Transactions,
    ) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._evaluations = evaluations
        self._transactions = transactions

    async def enable(
        self, target: Excluded, *, validate_only: bool
    ) -> tuple[AlertDefinition, list[warning_pb2.Warning]]:
        """Evaluates the alert for the target again. Raises AlertUnknown, AlertArchived and CustomerBeingErased."""
        definition, warnings, is_excluded = await self._read(target)
        if is_excluded:
            definition = await self._changes.run(
                current_organization().organization_id,
                lambda change: self._enable(change, target),
                keep=not validate_only,
            )
        if not validate_only:
            # Also for an alert that is enabled already: an earlier call may have ended before its evaluation.
            await self._evaluations.evaluate(current_organization(), target.customer_id)
        return definition, warnings

    async def _enable(self, change: OpenChange, target: Excluded) -> AlertDefinition:
        connection, organization_id = change.connection, change.organization_id
        definition = await self._changeable(connection, target)
        lifted = await exclusions.lift(connection, organization_id, target, change.epoch, change.now)
        if lifted is not None:
            await self._note(connection, ChangeKind.ENABLED, definition, target, change.now)
            ended = of_alert(exclusion_message(lifted), None, target.alert_id, target.customer_id)
            change.trail.append(NewEntry(current_cause(), ended))
            await customer_evaluations.note_enabled(
                change.driver, organization_id, target.customer_id, target.alert_id, change.epoch, change.now
            )
        return definition

    async def disable(
        self, target: Excluded, *, validate_only: bool
    ) -> tuple[AlertDefinition, list[warning_pb2.Warning]]:
        """Stops the evaluation for the target until it is enabled, and notifies of it.

        Raises AlertUnknown, AlertArchived and CustomerBeingErased.
        """
        definition, warnings, is_excluded = await self._read(target)
        if not is_excluded:
            definition = await self._changes.run(
                current_organization().organization_id,
                lambda change: self._disable(change, target),
                keep=not validate_only,
            )
        return definition, warnings

    async def _disable(self, change: OpenChange, target: Excluded) -> AlertDefinition:
        connection, organization_id, epoch, now = change.connection, change.organization_id, change.epoch, change.now
        definition = await self._changeable(connection, target)
        key_id = current_author().key_id
        if await exclusions.request(connection, organization_id, target, key_id, epoch, now):
            await self._note(connection, ChangeKind.DISABLED, definition, target, now)
            await disabled_notices.notify(connection, organization_id, [definition], epoch, now, target)
            made = StoredExclusion(target.customer_id, target.subscription_id, ExclusionReason.REQUESTED, now, key_id)
            begun = of_alert(None, exclusion_message(made), target.alert_id, target.customer_id)
            change.trail.append(NewEntry(current_cause(), begun))
        return definition

    async def _read(self, target: Excluded) -> tuple[AlertDefinition, list[warning_pb2.Warning], bool]:
        """What is read without the lock: the alert, warnings, and whether the target is excluded already."""
        organization_id = current_organization().organization_id
        async with self._changes.transaction(organization_id) as connection:
            [warnings] = await warnings_of(connection, organization_id, [unknown_ids.of_excluded(target)])
            definition = await self._changeable(connection, target)
            await erasures.refuse_during(connection, organization_id, target.customer_id)
            return definition, warnings, await exclusions.is_excluded(connection, organization_id, target)

    async def reset(self, alert_id: str, customer_id: str, *, validate_only: bool) -> CustomerAlert:
        """Deletes the state of an alert for a customer, and evaluates it again; returns the new state.

        Raises CustomerUnknown and AlertArchived.
        """
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            await self._evaluated(connection, alert_id, customer_id)
        async with transaction_of(self._database, validate_only) as connection:
            definition = await alerts.get(connection, organization_id, alert_id)
            assert definition is not None, "alerts are never deleted"
            await self._reset(connection, alert_id, customer_id)
            now = self._clock.now()
            await self._note(connection, ChangeKind.RESET, definition, Excluded(customer_id, alert_id, None), now)
            await record(connection, now, of_alert(None, None, alert_id, customer_id))
            view = await CustomerView.open(connection, organization_id, customer_id, now, locked=True)
            found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        return found

    async def _evaluated(self, connection: Connection, alert_id: str, customer_id: str) -> None:
        """Checks that the alert is evaluated for the customer. Raises CustomerUnknown and AlertArchived."""
        organization_id = current_organization().organization_id
        view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
        found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        if found.definition.state is DefinitionState.ARCHIVED:
            raise AlertArchived(alert_id)
        if found.status is None:
            raise FailedPrecondition(
                error_reason_pb2.ERROR_REASON_ALERT_NOT_EVALUATED,
                f"the alert {alert_id} is not evaluated for the customer {customer_id!r}: enable it first",
                metadata={"alert_id": alert_id, "customer_id": customer_id},
            )

    async def _reset(self, connection: Connection, alert_id: str, customer_id: str) -> None:
        """Evaluates an alert for a customer as if it had not been evaluated before."""
        transaction = await self._transactions.begin(connection, current_organization())
        rule = await transaction.rule(alert_id)
        if rule is not None:
            await evaluate_alert(transaction, rule, [customer_id], reset=True)

    async def _changeable(self, connection: Connection, target: Excluded) -> AlertDefinition:
        """The alert, if it can be disabled or enabled for the target. Raises AlertUnknown and AlertArchived."""
        definition = await alerts.get(connection, current_organization().organization_id, target.alert_id)
        if definition is None:
            raise AlertUnknown(target.alert_id)
        if definition.state is DefinitionState.ARCHIVED:
            raise AlertArchived(target.alert_id)
        violations = Violations()
        if definition.scope.customer_id not in (None, target.customer_id):
            violations.add("customer_id", f"the alert covers the customer {definition.scope.customer_id!r} only")
        if target.subscription_id is not None and not definition.condition.condition_type.per_subscription:
            violations.add("subscription_id", "the alert measures customers, not subscriptions: leave it unset")
        violations.raise_if_any()
        return definition

    async def _note(
        self,
        connection: Connection,
        kind: ChangeKind,
        definition: AlertDefinition,
        target: Excluded,
        now: datetime,
    ) -> None:
        await alert_history.record_for_customer(
            connection,
            current_organization().organization_id,
            kind,
            definition,
            current_author(),
            now,
            target,
        )
