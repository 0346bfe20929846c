"""Raw events for tests: metrics that count them, the events, and what was counted."""

from decimal import Decimal

from generated.tidemark.v1 import (
    account_service_pb2,
    filter_pb2,
    metric_pb2,
    usage_pb2,
)
from tests.support.usage.caller import (
    Caller,
)

INCLUDES, EXCLUDES = filter_pb2.FILTER_OPERATOR_INCLUDES, filter_pb2.FILTER_OPERATOR_EXCLUDES


def event_filter(
    key: str, *wanted: str, operator: filter_pb2.FilterOperator.ValueType = INCLUDES
) -> metric_pb2.EventFilter:
    return metric_pb2.EventFilter(key=key, operator=operator, values=wanted)


async def put(
    caller: Caller,
    metric_id: str,
    aggregation: str = "SUM",
    *filters: metric_pb2.EventFilter,
    event_name: str = "completion",
    quantity_property: str = "",
    unique_property: str = "",
    display_name: str = "",
) -> metric_pb2.Metric:
    metric = metric_pb2.Metric(
        metric_id=metric_id,
        display_name=display_name,
        aggregation=metric_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}"),
        unique_property=unique_property,
        event_name=event_name,
        event_filters=filters,
        quantity_property=quantity_property,
    )
    request = account_service_pb2.PutMetricRequest(metric=metric)
    return (await caller.accounts.PutMetric(request, metadata=caller.metadata)).metric


def raw(caller: Caller, event_id: str, quantity: str = "", **others: str) -> usage_pb2.UsageEvent:
    """A raw event; others: fields of `Caller.event` and properties."""
    event = caller.event(event_id, quantity, metric="", at=None, **others)
    event.event_name = "completion"
    return event


async def put_three(caller: Caller) -> None:
    """The sum of a property, a count of some events, and the number of users."""
    await put(caller, "tokens", quantity_property="tokens")
    await put(caller, "large calls", "COUNT", event_filter("model", "large", "huge"))
    await put(caller, "users", "UNIQUE_COUNT", event_filter("user"), unique_property="user")


THREE = ("tokens", "large calls", "users")


def three(caller: Caller) -> list[usage_pb2.UsageEvent]:
    """Raw events that add up to 1,750.5 tokens, 2 large calls and 2 users."""
    return [
        raw(caller, "r1", tokens="1000", model="large", user="ann"),
        raw(caller, "r2", tokens="500.5", model="small", user="bob"),
        raw(caller, "r3", tokens="250", model="huge", user="ann"),
        raw(caller, "r4", tokens="many", model="small"),
    ]


async def counted(caller: Caller, *metrics: str, customer: str = "acme") -> dict[str, Decimal]:
    """The stored values of the gauges of metrics."""
    rows = await caller.rows(
        "SELECT measure, value FROM gauge WHERE organization_id = %(organization_id)s AND customer_id = %(customer)s"
        " AND measure = ANY(%(measures)s) AND group_values = '[]'",
        customer=customer,
        measures=[f"usage/{one}" for one in metrics],
    )
    return {measure.removeprefix("usage/"): value for measure, value in rows}


ALL_COUNTED = {"tokens": Decimal("1750.5"), "large calls": Decimal(2), "users": Decimal(2)}
