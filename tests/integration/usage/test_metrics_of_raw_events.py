"""Metrics that count raw events: which are refused, how they are shown, changed and deleted."""

from decimal import Decimal
from typing import TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2

from generated.tidemark.v1 import (
    account_service_pb2,
    metric_pb2,
    usage_pb2,
)
from tests.support.server.running import reason_of, status_of, violations_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    Caller,
    beside,
    refusals,
    usage_alert,
    values,
)
from tests.support.usage.raw_events import EXCLUDES, INCLUDES, event_filter, put, raw

pytestmark = shares_server

Sent = TypeVar("Sent", usage_pb2.UsageEvent, metric_pb2.Metric)


def without(message: Sent, *fields: str, **changed: str) -> Sent:
    """A copy without some fields, and with others."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in fields:
        getattr(copy, "ClearField")(name)  # noqa: B009 - the stub names each field
    for name, value in changed.items():
        setattr(copy, name, value)
    return copy


async def test_bad_raw_events_are_rejected_and_their_neighbours_count(caller: Caller) -> None:
    answer = await caller.send(
        raw(caller, "good"),
        without(raw(caller, "both"), metric_id="calls"),
        without(raw(caller, "neither"), "event_name", quantity="1"),
        without(raw(caller, "blank"), event_name=" completion"),
        without(raw(caller, "long"), event_name="x" * 129),
        without(raw(caller, "word"), quantity="many"),
        without(caller.event("metric without quantity"), "quantity"),
        caller.event("of a metric"),
    )
    assert answer.accepted == 2
    assert [(one.at, one.reason, one.paths) for one in refusals(answer)] == [
        (1, "EVENT_INVALID", ("batch.events[1].event_name",)),
        (2, "EVENT_INVALID", ("batch.events[2].metric_id",)),
        (3, "EVENT_INVALID", ("batch.events[3].event_name",)),
        (4, "EVENT_INVALID", ("batch.events[4].event_name",)),
        (5, "EVENT_INVALID", ("batch.events[5].quantity",)),
        (6, "EVENT_INVALID", ("batch.events[6].quantity",)),
    ]


async def refused(caller: Caller, metric: metric_pb2.Metric) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.accounts.PutMetric(account_service_pb2.PutMetricRequest(metric=metric), metadata=caller.metadata)
    return raised.value


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_of(error).details)
    return dict(info.metadata)


BAD_METRICS: dict[str, tuple[metric_pb2.Metric, set[str]]] = {
    "filters without a type": (
        metric_pb2.Metric(event_filters=[event_filter("model")], quantity_property="size"),
        {"metric.event_filters", "metric.quantity_property"},
    ),
    "bad type": (metric_pb2.Metric(event_name=" x"), {"metric.event_name"}),
    "bad property": (metric_pb2.Metric(event_name="x", quantity_property="x" * 129), {"metric.quantity_property"}),
    "too many filters": (
        metric_pb2.Metric(event_name="x", event_filters=[event_filter(f"k{number}") for number in range(11)]),
        {"metric.event_filters"},
    ),
    "too many values": (
        metric_pb2.Metric(event_name="x", event_filters=[event_filter("k", *(str(one) for one in range(51)))]),
        {"metric.event_filters[0].values"},
    ),
    "bad filter": (
        metric_pb2.Metric(
            event_name="x", event_filters=[event_filter("k"), metric_pb2.EventFilter(values=["x" * 257, "a\n"])]
        ),
        {
            "metric.event_filters[1].key",
            "metric.event_filters[1].operator",
            "metric.event_filters[1].values[0]",
            "metric.event_filters[1].values[1]",
        },
    ),
}


@pytest.mark.parametrize(("metric", "paths"), BAD_METRICS.values(), ids=BAD_METRICS.keys())
async def test_bad_metric_is_refused_with_every_violation(
    caller: Caller, metric: metric_pb2.Metric, paths: set[str]
) -> None:
    sent = metric_pb2.Metric()
    sent.CopyFrom(metric)
    sent.metric_id = "m"
    error = await refused(caller, sent)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations_of(error)) == paths


async def test_metric_is_shown_with_its_events_in_one_order(caller: Caller) -> None:
    filters = [event_filter("model", "small", "large", "small"), event_filter("model", operator=EXCLUDES)]
    made = await put(caller, "m", "SUM", *filters, event_filter("a"), quantity_property="size")
    again = await put(caller, "m", "SUM", event_filter("a"), *reversed(filters), quantity_property="size")
    shown = [(one.key, one.operator, list(one.values)) for one in made.event_filters]
    assert shown == [("a", INCLUDES, []), ("model", EXCLUDES, []), ("model", INCLUDES, ["large", "small"])]
    assert (made.event_name, made.quantity_property) == ("completion", "size")
    assert again == made
    async with beside(caller) as restarted:
        request = account_service_pb2.GetMetricRequest(metric_id="m")
        assert (await restarted.accounts.GetMetric(request, metadata=caller.metadata)).metric == made


async def test_events_of_a_metric_cannot_be_changed(caller: Caller) -> None:
    made = await put(caller, "m", "SUM", event_filter("model"), quantity_property="size")
    await caller.send(caller.event("e1", metric="implicit"))
    for changed in (
        without(made, event_name="other"),
        without(made, quantity_property="other"),
        without(made, "event_filters"),
        without(made, "event_name", "event_filters", "quantity_property"),
    ):
        error = await refused(caller, changed)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert (reason_of(error), metadata_of(error)) == (
            "ERROR_REASON_METRIC_EVENTS_FIXED",
            {"metric_id": "m", "event_name": "completion"},
        )
    error = await refused(caller, metric_pb2.Metric(metric_id="implicit", event_name="completion"))
    assert (reason_of(error), metadata_of(error)) == (
        "ERROR_REASON_METRIC_EVENTS_FIXED",
        {"metric_id": "implicit", "event_name": ""},
    )


async def test_raw_events_do_not_keep_a_metric_from_being_deleted(caller: Caller) -> None:
    await put(caller, "m")
    await put(caller, "kept")
    await caller.send(raw(caller, "r1"), raw(caller, "r2"))
    request = account_service_pb2.DeleteMetricRequest(metric_id="m")
    await caller.accounts.DeleteMetric(request, metadata=caller.metadata)
    for metric in ("m", "kept"):
        await caller.create(usage_alert("1000", metric=metric))
    answer = await caller.send(raw(caller, "r3"), gauges=True)
    assert values(answer.gauges) == {("acme", "kept"): Decimal(3)}
    await put(caller, "m", "COUNT")
    answer = await caller.send(raw(caller, "r4", "5"), gauges=True)
    assert values(answer.gauges) == {("acme", "kept"): Decimal(8), ("acme", "m"): Decimal(4)}


async def test_metric_that_was_only_validated_counts_nothing(caller: Caller) -> None:
    await caller.send(raw(caller, "r1"))
    metric = metric_pb2.Metric(metric_id="m", event_name="completion")
    request = account_service_pb2.PutMetricRequest(metric=metric, validate_only=True)
    await caller.accounts.PutMetric(request, metadata=caller.metadata)
    await caller.create(usage_alert("1000", metric="m"))
    answer = await caller.send(raw(caller, "r2"), gauges=True)
    assert not answer.gauges
