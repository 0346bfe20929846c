"""AlertService: how the value of a gauge has moved."""

from datetime import timedelta

from engine.explanation.explaining import Explaining
from engine.explanation.questions import NotCovered, NotOfUsage, Question
from engine.explanation.series import series_of
from evaluator.amounts import format_decimal
from evaluator.gauges import Group
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import Clock
from server.alerts.customer_alert_requests import read_group
from server.alerts.errors import alert_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization, only_customer
from server.calls.validation import Violations, to_timestamp
from server.mapping.gauges import gauge_message
from server.mapping.series import read_point_count
from store.alerts.changes import AlertUnknown
from store.postgres.database import Database
from store.views.customer_alerts import GaugeSelection


class SeriesHandlers:
    """Serves GetCustomerAlertSeries."""

    def __init__(self, database: Database, clock: Clock, *, grace: timedelta, max_groups: int) -> None:
        """See `ExplanationHandlers`."""
        self._database = database
        self._clock = clock
        self._grace = grace
        self._max_groups = max_groups

    async def GetCustomerAlertSeries(
        self, request: messages.GetCustomerAlertSeriesRequest, context: Context
    ) -> messages.GetCustomerAlertSeriesResponse:
        """The course of one gauge in a billing period."""
        violations = Violations()
        group: Group = read_group(violations, request.group)
        question = Question(
            violations.identifier("alert_id", request.alert_id),
            violations.identifier("customer_id", request.customer_id),
            GaugeSelection(
                violations.identifier("subscription_id", request.subscription_id, required=False) or None, group
            ),
            violations.time("period_time", request.period_time) if request.HasField("period_time") else None,
        )
        points = read_point_count(violations, request.point_count)
        violations.raise_if_any()
        organization_id, now = current_organization().organization_id, self._clock.now()
        not_covering = alert_not_found(question.alert_id, covering=question.customer_id)
        async with self._database.transaction() as connection:
            explaining = Explaining(connection, organization_id, now, self._grace, self._max_groups)
            try:
                found = await series_of(explaining, question, points)
            except NotCovered:
                raise not_covering from None
            except AlertUnknown:
                if only_customer():
                    raise not_covering from None
                raise
            except NotOfUsage:
                violations.add("alert_id", "the alert measures neither usage nor cost, which alone have series")
                violations.raise_if_any()
                raise
        if found is None:
            violations.add(
                "group",
                "it names no gauge of the alert: give a value for each key by which the alert divides, and no other",
            )
            violations.raise_if_any()
            raise AssertionError("a violation was added")
        watch = found.found.watch
        answer = messages.GetCustomerAlertSeriesResponse(
            gauge=gauge_message(watch.gauge, found.value, watch.limit),
            event_count=found.examined,
            is_exact=found.is_exact,
        )
        for time, value in found.points:
            answer.points.add(point_time=to_timestamp(time), value=format_decimal(value))
        return answer
