"""AccountService: metrics."""

from datetime import datetime

from engine.facts.deletions import FactDeletions
from engine.puts.metric_puts import MetricPuts
from engine.puts.new_metrics import NewMetrics
from evaluator.aggregation import Aggregation
from generated.tidemark.v1 import account_service_pb2, metric_pb2
from runtime.clock import Clock
from server.accounts.errors import metric_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping.accounts import (
    metric_message,
    read_aggregation,
    read_as_of_time,
)
from server.mapping.audited_resources import Describing, deletion
from server.mapping.custom_fields import read_custom_fields
from server.mapping.event_filters import read_event_filters
from store.accounts import metrics
from store.accounts.deletions import FactKey, FactKind
from store.accounts.metrics import MetricFact
from store.audit.entries import NewEntry
from store.postgres.database import Connection, Database


class MetricHandlers:
    """Serves the RPCs for metrics."""

    def __init__(self, database: Database, clock: Clock, puts: MetricPuts, new_metrics: NewMetrics) -> None:
        self._database = database
        self._clock = clock
        self._puts = puts
        self._new_metrics = new_metrics
        self._deletions = FactDeletions(database, clock)

    async def PutMetric(
        self, request: account_service_pb2.PutMetricRequest, context: Context
    ) -> account_service_pb2.PutMetricResponse:
        """Creates or replaces a metric, unless a newer fact about it is stored."""
        now = self._clock.now()
        fact = _read(request.metric, now)
        organization_id = current_organization().organization_id
        describe = Describing(metric_message)
        put = await self._puts.put(organization_id, fact, describe, validate_only=request.validate_only)
        if put.changed and fact.event_name is not None and not request.validate_only:
            self._new_metrics.wake(organization_id)
        return account_service_pb2.PutMetricResponse(metric=metric_message(put.stored), superseded=put.superseded)

    async def GetMetric(
        self, request: account_service_pb2.GetMetricRequest, context: Context
    ) -> account_service_pb2.GetMetricResponse:
        """One metric."""
        violations = Violations()
        metric_id = violations.identifier("metric_id", request.metric_id)
        violations.raise_if_any()
        async with self._database.reading() as connection:
            stored = await metrics.get(connection, current_organization().organization_id, metric_id)
        if stored is None:
            raise metric_not_found(metric_id)
        return account_service_pb2.GetMetricResponse(metric=metric_message(stored))

    async def DeleteMetric(
        self, request: account_service_pb2.DeleteMetricRequest, context: Context
    ) -> account_service_pb2.DeleteMetricResponse:
        """Removes a metric that nothing uses."""
        violations = Violations()
        metric_id = violations.identifier("metric_id", request.metric_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            stored = await metrics.get(connection, organization_id, metric_id)
        if stored is None and not request.allow_missing:
            raise metric_not_found(metric_id)
        key = FactKey(FactKind.METRIC, metric_id)
        if stored is not None and request.validate_only:
            await self._deletions.check(organization_id, key)
        elif stored is not None:

            async def entry_of(connection: Connection) -> NewEntry | None:
                found = await metrics.get(connection, organization_id, metric_id)
                return None if found is None else deletion(metric_message(found))

            await self._deletions.delete(organization_id, key, entry_of)
        return account_service_pb2.DeleteMetricResponse()

    async def ListMetrics(
        self, request: account_service_pb2.ListMetricsRequest, context: Context
    ) -> account_service_pb2.ListMetricsResponse:
        """A page of metrics, by id."""
        violations = Violations()
        page = read_page(violations, request.page_size, request.page_token, "ListMetrics", (), (str,))
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            organization_id = current_organization().organization_id
            rows = await metrics.list_page(
                connection,
                organization_id,
                after=None if page.after is None else str(page.after[0]),
                limit=page.limit,
            )
            total_size = await metrics.count(connection, organization_id) if request.include_total_size else None
        answer = account_service_pb2.ListMetricsResponse(total_size=total_size)
        page = await page.cut_into(answer.metrics, map(metric_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.metric_id,))
        return answer


def _read(sent: metric_pb2.Metric, now: datetime) -> MetricFact:
    """A metric that was sent. Raises InvalidArgument with all violations."""
    violations = Violations()
    metric_id = violations.identifier("metric.metric_id", sent.metric_id)
    display_name = violations.text("metric.display_name", sent.display_name)
    aggregation = read_aggregation(violations, "metric.aggregation", sent.aggregation)
    counts_unique = aggregation is Aggregation.UNIQUE_COUNT
    unique_property = violations.identifier("metric.unique_property", sent.unique_property, required=counts_unique)
    if sent.unique_property and not counts_unique:
        violations.add("metric.unique_property", "only UNIQUE_COUNT has a unique_property")
    event_name = violations.identifier("metric.event_name", sent.event_name, required=False)
    event_filters = read_event_filters(violations, "metric.event_filters", sent.event_filters)
    quantity_property = violations.identifier("metric.quantity_property", sent.quantity_property, required=False)
    if not event_name and sent.event_filters:
        violations.add("metric.event_filters", "they are set without an event_name")
    if not event_name and quantity_property:
        violations.add("metric.quantity_property", "it is set without an event_name")
    custom_fields = read_custom_fields(violations, "metric.custom_fields", sent.custom_fields)
    as_of_time = read_as_of_time(violations, "metric", sent, now)
    violations.raise_if_any()
    return MetricFact(
        metric_id=metric_id,
        display_name=display_name,
        aggregation=aggregation,
        unique_property=unique_property or None,
        as_of_time=as_of_time,
        custom_fields=custom_fields,
        event_name=event_name or None,
        event_filters=event_filters,
        quantity_property=quantity_property or None,
    )
