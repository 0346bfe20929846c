"""What is changed of an alert for one of those whom it covers: it is switched off, on again, or made to forget."""

from datetime import timedelta

from engine.facts.one_alert import evaluate_alert
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import Excluded
from generated.tidemark.v1 import error_reason_pb2
from runtime.clock import Clock
from server.alerts.service import alert_not_found, customer_not_found
from server.calls.errors import FailedPrecondition
from server.calls.identity import current_author, current_organization
from server.calls.validation import Violations
from store.alerts import alerts, exclusions
from store.alerts import history as alert_history
from store.alerts.changes import AlertArchived, AlertUnknown
from store.alerts.history import ChangeKind
from store.identity import organizations
from store.postgres.database import Connection, Database
from store.views.customer_alerts import CustomerAlert
from store.views.customer_views import CustomerUnknown, CustomerView


class CustomerChanges:
    """Changes of the current organization's alerts for single customers and subscriptions; the history notes each."""

    def __init__(self, database: Database, clock: Clock, grace: timedelta, rules: RulesRegistry) -> None:
        self._database = database
        self._clock = clock
        self._transactions = Transactions(database, clock, grace, rules)

    async def enable(self, connection: Connection, whom: Excluded) -> AlertDefinition:
        """Evaluates an alert again for them, at once. Raises AlertUnknown and AlertArchived."""
        organization_id = current_organization().organization_id
        definition = await self._changeable(connection, whom)
        if await exclusions.lift(connection, organization_id, whom, self._clock.now()):
            await self._note(connection, ChangeKind.ENABLED, definition, whom)
            await self._evaluate(connection, definition, whom.customer_id, changed_epoch=True)
        return definition

    async def disable(self, connection: Connection, whom: Excluded) -> AlertDefinition:
        """Evaluates an alert no more for them until it is enabled. Raises AlertUnknown and AlertArchived."""
        organization_id = current_organization().organization_id
        definition = await self._changeable(connection, whom)
        if await exclusions.request(connection, organization_id, whom, self._clock.now()):
            await self._note(connection, ChangeKind.DISABLED, definition, whom)
        return definition

    async def reset(self, alert_id: str, customer_id: str) -> CustomerAlert:
        """Makes an alert forget a customer and look again; returns what it knows then. Raises AlertArchived."""
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            await self._evaluated(connection, alert_id, customer_id)
        async with self._database.transaction() as connection:
            definition = await alerts.get(connection, organization_id, alert_id)
            assert definition is not None, "alerts are never deleted"
            await self._evaluate(connection, definition, customer_id, reset=True)
            await self._note(connection, ChangeKind.RESET, definition, Excluded(customer_id, alert_id, None))
        async with self._database.transaction() as connection:
            view = await CustomerView.open(connection, organization_id, customer_id, self._clock.now())
            found = await view.get(alert_id)
        if found is None:
            raise alert_not_found(alert_id, covering=customer_id)
        return found

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

    async def _evaluate(
        self,
        connection: Connection,
        definition: AlertDefinition,
        customer_id: str,
        *,
        changed_epoch: bool = False,
        reset: bool = False,
    ) -> None:
        """Evaluates an alert for one customer; changed_epoch: this transaction has raised the epoch itself."""
        organization = current_organization()
        if changed_epoch:
            epoch = await organizations.share(connection, organization.organization_id)
            transaction = await self._transactions.after_change(connection, organization, epoch)
        else:
            transaction = await self._transactions.begin(connection, organization)
        rule = transaction.router.alerts.get(definition.alert_id)
        if rule is not None:
            await evaluate_alert(transaction, rule, [customer_id], reset=reset)

    async def _changeable(self, connection: Connection, whom: Excluded) -> AlertDefinition:
        """The alert, if it can be disabled and enabled for that customer or subscription."""
        definition = await alerts.get(connection, current_organization().organization_id, whom.alert_id)
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
        kind: ChangeKind,
        definition: AlertDefinition,
        whom: Excluded,
    ) -> None:
        await alert_history.record(
            connection,
            current_organization().organization_id,
            kind,
            definition,
            current_author(),
            self._clock.now(),
            customer_id=whom.customer_id,
            subscription_id=whom.subscription_id,
        )
