"""Raw events: an event with a type counts in every metric of that type, when it comes and when it is recounted."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    condition_pb2,
    filter_pb2,
    metric_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from tests.support.server.running import reason_of, status_of, violations_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    Caller,
    beside,
    on_subscription,
    refusals,
    shortened,
    spend_alert,
    thresholds,
    until,
    usage_alert,
    values,
)
from tests.support.usage.voiding import outcomes, void

pytestmark = shares_server

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


async def test_raw_event_moves_the_gauges_of_every_metric_that_it_counts_in(caller: Caller) -> None:
    await put_three(caller)
    for metric, level in zip(THREE, ("1500", "2", "2"), strict=True):
        await caller.create(usage_alert(level, metric=metric))
    answer = await caller.send(*three(caller), gauges=True)
    assert (answer.accepted, list(answer.rejected)) == (4, [])
    assert values(answer.gauges) == {("acme", metric): value for metric, value in ALL_COUNTED.items()}
    assert sorted(one.event_id for one in shortened(answer.transitions)) == ["r2", "r2", "r3"]


async def test_alert_created_later_counts_stored_raw_events(caller: Caller) -> None:
    await put_three(caller)
    await caller.send(*three(caller))
    for metric in THREE:
        await caller.create(usage_alert("1000000", metric=metric))
    assert await counted(caller, *THREE) == ALL_COUNTED


async def test_metric_created_later_counts_stored_raw_events(caller: Caller) -> None:
    answer = await caller.send(*three(caller))
    assert answer.accepted == 4
    early = [await caller.create(usage_alert("1000000", metric=metric)) for metric in THREE[:2]]
    assert await counted(caller, *THREE) == {}
    await put_three(caller)
    for alert in early:
        await caller.backfilled(alert.alert_id)
    await caller.create(usage_alert("1000000", metric="users"))
    assert await counted(caller, *THREE) == ALL_COUNTED


@own_server
async def test_next_raw_event_counts_those_from_before_the_metric(caller: Caller, clock: ManualClock) -> None:
    """The alert has watched since an earlier period, but the metric began in this one."""
    alert = await caller.create(usage_alert("1000", metric="tokens"))
    clock.advance(timedelta(days=40))
    await caller.send(raw(caller, "r1", tokens="900"))
    await put(caller, "tokens", quantity_property="tokens")
    answer = await caller.send(raw(caller, "r2", tokens="100"), gauges=True)
    assert values(answer.gauges) == {("acme", "tokens"): Decimal(1000)}
    await caller.backfilled(alert.alert_id)
    assert await counted(caller, "tokens") == {"tokens": Decimal(1000)}


async def test_changed_name_of_a_metric_recounts_nothing(caller: Caller) -> None:
    await put(caller, "tokens", quantity_property="tokens")
    alert = await caller.create(usage_alert("1000", metric="tokens"))
    await caller.send(raw(caller, "r1", tokens="900"))
    await caller.rows("UPDATE gauge SET value = 950 WHERE organization_id = %(organization_id)s RETURNING 1")
    await put(caller, "tokens", quantity_property="tokens", display_name="Tokens")
    await caller.backfilled(alert.alert_id)
    answer = await caller.send(raw(caller, "r2", tokens="1"), gauges=True)
    assert values(answer.gauges) == {("acme", "tokens"): Decimal(951)}


@pytest.mark.parametrize(
    ("aggregation", "value"), [("SUM", "9"), ("COUNT", "2"), ("MAX", "7"), ("LATEST", "5"), ("UNIQUE_COUNT", "3")]
)
@pytest.mark.parametrize("alert_first", [True, False])
async def test_every_aggregation_counts_the_amounts_of_raw_events(
    caller: Caller, aggregation: str, value: str, alert_first: bool
) -> None:
    unique = "user" if aggregation == "UNIQUE_COUNT" else ""
    await put(caller, "m", aggregation, quantity_property="size", unique_property=unique)
    if alert_first:
        await caller.create(usage_alert("1000", metric="m"))
    start = caller.clock.now() - timedelta(hours=1)
    for number, size in enumerate(("7", "-3", "5", "1e3", "")):
        event = raw(caller, f"r{number}", "100", size=size, user=f"u{number}")
        event.event_time.FromDatetime(start + timedelta(minutes=number))
        await caller.send(event)
    await caller.send(raw(caller, "without", "100", user="u9"))
    if not alert_first:
        await caller.create(usage_alert("1000", metric="m"))
    expected = "1" if aggregation == "COUNT" else value
    assert await counted(caller, "m") == {"m": Decimal(expected)}


FILTERS = {
    "one value": ([event_filter("model", "large")], {"a", "b"}),
    "any of two values": ([event_filter("model", "large", "small")], {"a", "b", "c"}),
    "the property exists": ([event_filter("region")], {"a", "c"}),
    "not this value": ([event_filter("model", "large", operator=EXCLUDES)], {"c", "d", "e"}),
    "the property does not exist": ([event_filter("model", operator=EXCLUDES)], {"d", "e"}),
    "all of two": ([event_filter("model", "large"), event_filter("region", "eu")], {"a"}),
    "two of one property": ([event_filter("model"), event_filter("model", "large", operator=EXCLUDES)], {"c"}),
    "an empty value": ([event_filter("region", "")], {"c"}),
    "none": ([], {"a", "b", "c", "d", "e"}),
}
PROPERTIES: dict[str, dict[str, str]] = {
    "a": {"model": "large", "region": "eu"},
    "b": {"model": "large"},
    "c": {"model": "small", "region": ""},
    "d": {"other": "large"},
    "e": {},
}


@pytest.mark.parametrize(("filters", "passing"), FILTERS.values(), ids=FILTERS.keys())
async def test_raw_event_counts_where_it_passes_all_filters(
    caller: Caller, filters: Sequence[metric_pb2.EventFilter], passing: set[str]
) -> None:
    weights = {name: 10**number for number, name in enumerate(PROPERTIES)}
    expected = {"m": Decimal(sum(weights[name] for name in passing))}
    await put(caller, "m", "SUM", *filters)
    first = await caller.create(usage_alert("1000000", metric="m"))
    await caller.send(*(raw(caller, name, str(weights[name]), **own) for name, own in PROPERTIES.items()))
    assert await counted(caller, "m") == expected
    await caller.archive(first.alert_id)
    await caller.rows("DELETE FROM gauge WHERE organization_id = %(organization_id)s RETURNING 1")
    await caller.create(usage_alert("1000000", metric="m"))
    assert await counted(caller, "m") == expected


DECIMALS = ("1", "-0.5", "007", "1.0", "9" * 38, "0." + "1" * 18, "9" * 20 + "." + "9" * 18)
NO_DECIMALS = (
    "",
    "+1",
    "1.",
    ".5",
    "1e2",
    " 1",
    "9" * 39,
    "0." + "1" * 19,
    "9" * 21 + "." + "9" * 18,
    "١",
    "NaN",
    "--1",
)


@pytest.mark.parametrize("text", [*DECIMALS, *NO_DECIMALS])
async def test_stream_and_recount_agree_on_what_is_a_decimal(caller: Caller, text: str) -> None:
    await put(caller, "m", quantity_property="size")
    first = await caller.create(usage_alert("5", metric="m"))
    await caller.send(raw(caller, "r0", size="0"), raw(caller, "r1", size=text))
    streamed = await counted(caller, "m")
    assert streamed == {"m": Decimal(text) if text in DECIMALS else Decimal(0)}
    await caller.archive(first.alert_id)
    await caller.rows("DELETE FROM gauge WHERE organization_id = %(organization_id)s RETURNING 1")
    await caller.create(usage_alert("5", metric="m"))
    assert await counted(caller, "m") == streamed


async def test_quantity_of_a_raw_event_is_one_when_it_is_unset(caller: Caller) -> None:
    await put(caller, "calls of a type")
    await caller.create(usage_alert("1000", metric="calls of a type"))
    await caller.send(raw(caller, "r1"), raw(caller, "r2", "2.5"))
    again = await caller.send(raw(caller, "r1", "1"))
    assert (again.accepted, again.duplicates) == (0, 1)
    assert await counted(caller, "calls of a type") == {"calls of a type": Decimal("3.5")}


async def test_event_that_names_a_metric_with_an_event_name_counts_with_its_quantity(caller: Caller) -> None:
    await put(caller, "tokens", "SUM", event_filter("model", "large"), quantity_property="tokens")
    first = await caller.create(usage_alert("1000", metric="tokens"))
    await caller.send(raw(caller, "r1", model="large", tokens="10"), caller.event("e1", "-3", metric="tokens"))
    assert await counted(caller, "tokens") == {"tokens": Decimal(7)}
    await caller.archive(first.alert_id)
    await caller.send(caller.event("e2", "1", metric="tokens"))
    await caller.create(usage_alert("1000", metric="tokens"))
    assert await counted(caller, "tokens") == {"tokens": Decimal(8)}


async def test_cost_of_a_raw_event_counts_once(caller: Caller) -> None:
    await put_three(caller)
    await caller.create(spend_alert("1000"))
    event = raw(caller, "r1", cost="12.5", tokens="10", model="large", user="ann")
    unknown = raw(caller, "r2", cost="1.5")
    unknown.event_name = "a type without a metric"
    answer = await caller.send(event, unknown, gauges=True)
    assert [one.value for one in answer.gauges] == ["14"]
    await caller.create(spend_alert("1000", groups=[("user", None)]))
    rows = await caller.rows(
        "SELECT group_values, value FROM gauge WHERE organization_id = %(organization_id)s ORDER BY value"
    )
    assert rows == [([["user", "ann"]], Decimal("12.5")), ([], Decimal(14))]


async def test_groups_and_subscriptions_count_raw_events(caller: Caller) -> None:
    await put(caller, "tokens", quantity_property="tokens")
    await caller.create(usage_alert("100", metric="tokens", groups=[("user", None)]))
    await caller.create(usage_alert("100", metric="tokens", groups=[("user", "bob")]))
    await caller.create(
        alert_pb2.Alert(
            display_name="usage of a subscription",
            scope=on_subscription("pro"),
            usage_exceeded=condition_pb2.UsageExceededCondition(metric_id="tokens"),
            thresholds=thresholds("100"),
        )
    )
    answer = await caller.send(
        raw(caller, "r1", tokens="5", user="ann", subscription="pro"),
        raw(caller, "r2", tokens="7", user="bob", subscription="pro"),
        gauges=True,
    )
    assert values(answer.gauges) == {
        ("acme", "tokens", "ann"): 5,
        ("acme", "tokens", "bob"): 7,
        ("acme", "pro", "tokens"): 12,
    }


@pytest.mark.parametrize("together", [True, False])
async def test_duplicate_raw_event_counts_once_and_a_changed_one_conflicts(caller: Caller, together: bool) -> None:
    await put(caller, "m")
    await caller.create(usage_alert("1000", metric="m"))
    event = raw(caller, "r1", "5", user="ann")
    other_type, of_metric = raw(caller, "r1", "5", user="ann"), caller.event("r1", "5", metric="m", user="ann")
    other_type.event_name = "other"
    if together:
        answer = await caller.send(event, event, other_type, of_metric)
        shift = 0
    else:
        await caller.send(event)
        answer = await caller.send(event, other_type, of_metric)
        shift = 1
    assert answer.duplicates == 1
    assert [(one.at + shift, one.reason) for one in refusals(answer)] == [
        (2, "EVENT_CONFLICT"),
        (3, "EVENT_CONFLICT"),
    ]
    assert await counted(caller, "m") == {"m": Decimal(5)}


async def test_replicas_count_raw_events_of_a_metric_that_another_one_created(caller: Caller) -> None:
    async with beside(caller) as other:
        await asyncio.gather(caller.send(raw(caller, "r0", tokens="1")), other.send(raw(other, "s0", tokens="1")))
        await put(other, "tokens", quantity_property="tokens")
        await caller.create(usage_alert("1000", metric="tokens"))
        batches = [
            one.send(*(raw(one, f"r{number}-{item}", tokens="1") for item in range(10)))
            for number in range(5)
            for one in (caller, other)
        ]
        answers = await asyncio.gather(*batches)
        assert sum(answer.accepted for answer in answers) == 50
        assert sum(answer.duplicates for answer in answers) == 50
        assert await counted(caller, "tokens") == {"tokens": Decimal(52)}
    async with beside(caller) as restarted:
        answer = await restarted.send(raw(restarted, "r9", tokens="1"), gauges=True)
        assert values(answer.gauges) == {("acme", "tokens"): Decimal(53)}


async def test_metric_that_is_created_while_raw_events_stream_counts_them_all(caller: Caller) -> None:
    alert = await caller.create(usage_alert("1000000", metric="tokens"))

    async def stream(number: int) -> None:
        for item in range(20):
            await caller.send(raw(caller, f"r{number}-{item}", tokens="1"))

    streams = asyncio.gather(*(stream(number) for number in range(3)))

    async def some_came() -> bool:
        return await caller.event_count() > 10

    await until(some_came)
    await put(caller, "tokens", quantity_property="tokens")
    await streams
    await caller.backfilled(alert.alert_id)
    assert await counted(caller, "tokens") == {"tokens": Decimal(60)}


async def test_voided_raw_event_counts_no_more_in_any_metric(caller: Caller) -> None:
    await put_three(caller)
    for metric in THREE:
        await caller.create(usage_alert("1000000", metric=metric))
    await caller.send(*three(caller), raw(caller, "r5", tokens="8", model="large", user="zoe"))
    assert outcomes(await void(caller, "r5")) == ["VOIDED"]
    assert await counted(caller, *THREE) == ALL_COUNTED
    assert outcomes(await void(caller, "r1", "r2", "r5")) == ["VOIDED", "VOIDED", "ALREADY_VOIDED"]
    left = {"tokens": Decimal(250), "large calls": Decimal(1), "users": Decimal(1)}
    assert await counted(caller, *THREE) == left
    rows = await caller.rows(
        "SELECT event_id, event_name, metric_id FROM voided_event WHERE organization_id = %(organization_id)s"
        " ORDER BY event_id"
    )
    assert rows == [("r1", "completion", None), ("r2", "completion", None), ("r5", "completion", None)]
    again = await caller.send(raw(caller, "r5", tokens="50"))
    assert again.accepted == 1
    assert (await counted(caller, "tokens")) == {"tokens": Decimal(300)}


async def test_raw_events_of_another_organization_do_not_count(caller: Caller, clock: ManualClock) -> None:
    answer = await caller.send(raw(caller, "r1"))
    assert answer.accepted == 1
    rows = await caller.rows("SELECT count(*) FROM metric WHERE organization_id = %(organization_id)s")
    assert rows == [(0,)], "a raw event registers no metric"


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
