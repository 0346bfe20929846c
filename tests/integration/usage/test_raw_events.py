"""Raw events: an event with a type counts in every metric of that type, when it comes and when it is recounted."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    metric_pb2,
)
from runtime.clock import ManualClock
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
from tests.support.usage.raw_events import (
    ALL_COUNTED,
    EXCLUDES,
    THREE,
    counted,
    event_filter,
    put,
    put_three,
    raw,
    three,
)
from tests.support.usage.voiding import outcomes, void

pytestmark = shares_server


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
