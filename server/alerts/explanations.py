"""AlertService: explains why an alert has notified about a customer, or has not."""

from datetime import timedelta

from engine.explanation.deliveries import SentNotification, Whereabouts, find_deliveries, find_notifications
from engine.explanation.explaining import Explaining
from engine.explanation.findings import Check, Reason
from engine.explanation.notified import with_notified
from engine.explanation.questions import Question
from evaluator.gauges import Group
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import Clock
from server.alerts.customer_alert_requests import read_group
from server.alerts.errors import alert_not_found
from server.alerts.id_warnings import warnings_of
from server.calls.context import Context
from server.calls.current_call import current_author, current_organization, only_customer
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alerts import read_new_alert
from server.mapping.explanations import explanation_message
from store.alerts.change import Begun
from store.alerts.changes import AlertUnknown
from store.alerts.drafts import draft, with_currencies
from store.notifications import history
from store.postgres.database import Database
from store.views.customer_alerts import GaugeSelection


class ExplanationHandlers:
    """Serves ExplainCustomerAlert and PreviewAlert."""

    def __init__(self, database: Database, clock: Clock, *, grace: timedelta, max_groups: int) -> None:
        """grace: how long after its end a period still counts late events. max_groups: the group limit."""
        self._database = database
        self._clock = clock
        self._grace = grace
        self._max_groups = max_groups

    async def PreviewAlert(
        self, request: messages.PreviewAlertRequest, context: Context
    ) -> messages.PreviewAlertResponse:
        """What an alert would say about a customer if it were created now."""
        violations = Violations()
        customer_id = violations.identifier("customer_id", request.customer_id)
        violations.raise_if_any()
        new = read_new_alert(violations, messages.CreateAlertRequest(alert=request.alert))
        organization_id, now = current_organization().organization_id, self._clock.now()
        async with self._database.transaction() as connection:
            # Reads of the snapshot must not have begun: a currency is read in a transaction of its own.
            [drafted] = await with_currencies(connection, organization_id, [draft(new, current_author())])
            [warnings] = await warnings_of(
                connection, organization_id, [unknown_ids.of_alert(new.scope, new.condition, new.thresholds)]
            )
        definition = drafted.begun(Begun(0, now), complete=True)
        question = Question(definition.alert_id, customer_id, GaugeSelection(None, ()))
        async with self._database.transaction() as connection:
            explaining = Explaining(connection, organization_id, now, self._grace, self._max_groups)
            found = await explaining.explain(question, definition)
            whereabouts = await find_deliveries(connection, organization_id, found.definition, [])
        return messages.PreviewAlertResponse(
            explanation=explanation_message(found, whereabouts, with_deliveries=True), warnings=warnings
        )

    async def ExplainCustomerAlert(
        self, request: messages.ExplainCustomerAlertRequest, context: Context
    ) -> messages.ExplainCustomerAlertResponse:
        """Why an alert has notified about a customer, or has not."""
        violations = Violations()
        question = _question(violations, request)
        violations.raise_if_any()
        organization, limited = current_organization(), bool(only_customer())
        organization_id, now = organization.organization_id, self._clock.now()
        # The latest notifications get their positions in the feed, by which those of the customer are found.
        async with history.reading(self._database, organization_id):
            pass
        async with self._database.transaction() as connection:
            explaining = Explaining(connection, organization_id, now, self._grace, self._max_groups)
            # The key of one customer shows nothing of alerts that are not about the customer, not that they exist.
            not_covering = alert_not_found(question.alert_id, covering=question.customer_id)
            try:
                found = await explaining.explain(question)
            except AlertUnknown:
                if limited:
                    raise not_covering from None
                raise
            scope = found.steps[0]
            assert scope.check is Check.SCOPE
            if limited and scope.reason is not Reason.PASSED:
                raise not_covering
            if question.selection.subscription_id and not found.definition.condition.condition_type.per_subscription:
                violations.add("subscription_id", "the alert measures customers, not subscriptions: leave it unset")
                violations.raise_if_any()
            entries = await find_notifications(
                connection, organization, found.definition, question.customer_id, found.gauges
            )
            found = with_notified(found, entries, question.selection, question.period_time or now)
            whereabouts = Whereabouts([SentNotification(entry) for entry in entries])
            if not limited:
                whereabouts = await find_deliveries(connection, organization_id, found.definition, entries)
        return messages.ExplainCustomerAlertResponse(
            explanation=explanation_message(found, whereabouts, with_deliveries=not limited)
        )


def _question(violations: Violations, request: messages.ExplainCustomerAlertRequest) -> Question:
    group: Group = read_group(violations, request.group)
    return Question(
        violations.identifier("alert_id", request.alert_id),
        violations.identifier("customer_id", request.customer_id),
        GaugeSelection(
            violations.identifier("subscription_id", request.subscription_id, required=False) or None, group
        ),
        violations.time("period_time", request.period_time) if request.HasField("period_time") else None,
    )
