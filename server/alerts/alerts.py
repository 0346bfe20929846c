"""AlertService: creates alerts, and shows their definitions."""

import json
from collections.abc import Callable

from engine.backfill.backfills import Backfills
from engine.changes.groups import ChangeGroups
from engine.rules.registry import RulesRegistry
from evaluator.definitions import AlertDefinition
from generated.tidemark.v1 import alert_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from server.alerts.creations import CreatedOrAnswer, Creation, Creations
from server.alerts.errors import alert_not_found
from server.calls.context import Context
from server.calls.current_call import current_author, current_organization
from server.calls.idempotency import read_request_id, request_key
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alerts import (
    MAX_UNIQUENESS_KEY_LENGTH,
    alert_message,
    read_condition_types,
    read_new_alert,
    read_states,
)
from server.mapping.audited_resources import Describing
from server.mapping.labels import read_labels
from server.mapping.list_order import read_newest_first
from store.alerts import alerts, lists
from store.alerts.drafts import draft
from store.alerts.lists import AlertFilter
from store.postgres.database import Database


class AlertHandlers:
    """Serves the RPCs that create, get and list alerts."""

    def __init__(
        self,
        database: Database,
        changes: ChangeGroups,
        backfills: Backfills,
        rules: RulesRegistry,
        *,
        most_examined: int,
        max_alerts: Callable[[int], int | None],
    ) -> None:
        """most_examined: alerts that one page reads, with filters that no index answers. max_alerts: of an
        organization."""
        self._database = database
        self._changes = changes
        self._creations = Creations(rules, max_alerts)
        self._backfills = backfills
        self._most_examined = most_examined

    async def CreateAlert(
        self, request: messages.CreateAlertRequest, context: Context
    ) -> messages.CreateAlertResponse:
        """Creates an alert, or repeats the answer that the same request got before."""
        violations = Violations()
        read_request_id(violations, request.request_id)
        new = read_new_alert(violations, request)
        organization_id = current_organization().organization_id
        is_kept = not request.validate_only
        wanted = Creation(
            draft(new, current_author()),
            unknown_ids.of_alert(new.scope, new.condition, new.thresholds),
            request_key("CreateAlert", request),
            is_kept,
            Describing(alert_message),
        )
        created: CreatedOrAnswer = await self._changes.run_together(
            organization_id, self._creations, wanted, keep=is_kept
        )
        answer = wanted.answer(created) if isinstance(created, AlertDefinition) else created
        if is_kept and answer.alert.evaluation_status == alert_pb2.EVALUATION_STATUS_EVALUATING:
            self._backfills.wake(organization_id)
        return answer

    async def GetAlert(self, request: messages.GetAlertRequest, context: Context) -> messages.GetAlertResponse:
        """One alert, archived or not."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        violations.raise_if_any()
        async with self._database.reading() as connection:
            found = await alerts.get(connection, current_organization().organization_id, alert_id)
        if found is None:
            raise alert_not_found(alert_id)
        return messages.GetAlertResponse(alert=alert_message(found))

    async def ListAlerts(self, request: messages.ListAlertsRequest, context: Context) -> messages.ListAlertsResponse:
        """A page of alerts, the oldest or the newest first."""
        violations = Violations()
        filters = _read_filters(violations, request)
        newest_first = read_newest_first(violations, request.order)
        bound_to = (*_canonical(filters), str(newest_first))
        page = read_page(violations, request.page_size, request.page_token, "ListAlerts", bound_to, BY_TIME)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            found = await lists.page(
                connection,
                organization_id,
                filters,
                after=after_time_and_id(page),
                limit=page.limit,
                newest_first=newest_first,
                most_examined=self._most_examined,
            )
            total_size = None
            if request.include_total_size:
                total_size = await lists.count(connection, organization_id, filters)
        answer = messages.ListAlertsResponse(total_size=total_size)
        page = await page.cut_into(answer.alerts, map(alert_message, page.shown(found.items)))
        answer.next_page_token = page.next_token(found.items, lambda row: (row.create_time, row.alert_id), found.end)
        return answer


def _read_filters(violations: Violations, request: messages.ListAlertsRequest) -> AlertFilter:
    return AlertFilter(
        customer_id=violations.identifier("customer_id", request.customer_id, required=False) or None,
        plan_id=violations.identifier("plan_id", request.plan_id, required=False) or None,
        subscription_id=violations.identifier("subscription_id", request.subscription_id, required=False) or None,
        uniqueness_key=violations.text("uniqueness_key", request.uniqueness_key, max_length=MAX_UNIQUENESS_KEY_LENGTH)
        or None,
        condition_types=read_condition_types(violations, "condition_types", request.condition_types),
        states=read_states(violations, "states", request.states),
        labels=read_labels(violations, "labels", request.labels),
        display_name_prefix=violations.text("display_name_prefix", request.display_name_prefix),
        start_time=violations.time("start_time", request.start_time) if request.HasField("start_time") else None,
        end_time=violations.time("end_time", request.end_time) if request.HasField("end_time") else None,
    )


def _canonical(filters: AlertFilter) -> tuple[str, ...]:
    """The filters as texts that are equal for equal filters, in whatever order their values are."""
    return (
        filters.customer_id or "",
        filters.plan_id or "",
        filters.subscription_id or "",
        filters.uniqueness_key or "",
        ",".join(sorted(set(filters.condition_types))),
        ",".join(sorted(set(filters.states))),
        json.dumps(filters.labels, sort_keys=True),
        filters.display_name_prefix,
        "" if filters.start_time is None else filters.start_time.isoformat(),
        "" if filters.end_time is None else filters.end_time.isoformat(),
    )
