"""GetCustomerAlertSeries: the course of a gauge is what the stored events say, exactly or from a sample of them."""

from datetime import timedelta
from decimal import Decimal
from random import Random

import grpc
import pytest

from generated.tidemark.v1 import alert_pb2, metric_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1.gauge_pb2 import GroupValue
from server.calls.validation import to_timestamp
from store.usage import series
from tests.support.databases import NOON
from tests.support.enforcement.gateway import gateway_of
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import own_database, shares_server
from tests.support.usage.caller import Caller, on_customer, spend_alert, usage_alert

pytestmark = shares_server

POINTS = 31  # of a month: one a day


async def course(
    caller: Caller, alert_id: str, customer: str = "acme", **fields: object
) -> messages.GetCustomerAlertSeriesResponse:
    """The course of a gauge."""
    request = messages.GetCustomerAlertSeriesRequest(alert_id=alert_id, customer_id=customer, **fields)  # type: ignore[arg-type]
    return await caller.alerts.GetCustomerAlertSeries(request, metadata=caller.metadata)


def counting_held() -> alert_pb2.Alert:
    """An alert that counts what reservations hold."""
    alert = usage_alert("100000000")
    alert.counts_held = True
    return alert


def values(answer: messages.GetCustomerAlertSeriesResponse) -> list[str]:
    """The values, one after the other, without repetitions."""
    found: list[str] = []
    for point in answer.points:
        if not found or point.value != found[-1]:
            found.append(point.value)
    return found


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (metric_pb2.AGGREGATION_SUM, ["0", "5", "15", "12.5"]),
        (metric_pb2.AGGREGATION_COUNT, ["0", "1", "2", "1"]),
        (metric_pb2.AGGREGATION_MAX, ["0", "5", "10"]),
        (metric_pb2.AGGREGATION_LATEST, ["0", "5", "10", "-2.5"]),
    ],
)
async def test_the_course_follows_the_aggregation(
    caller: Caller, aggregation: metric_pb2.Aggregation.ValueType, expected: list[str]
) -> None:
    await caller.put_metric("calls", aggregation)
    alert = await caller.create(usage_alert("100"))
    for number, quantity in enumerate(("5", "10", "-2.5")):
        time = NOON - timedelta(days=6 - 2 * number)
        await caller.send(caller.event(f"e{number}", quantity, at=time))
    answer = await course(caller, alert.alert_id)
    assert values(answer) == expected
    assert (answer.is_exact, answer.event_count) == (True, 3)
    assert answer.gauge.value == expected[-1]
    assert answer.points[0].point_time == answer.gauge.billing_period.start_time
    assert answer.points[-1].point_time == to_timestamp(NOON)
    times = [point.point_time.seconds for point in answer.points]
    assert times == sorted(set(times))


async def test_distinct_values_count_when_they_come_first(caller: Caller) -> None:
    await caller.put_metric("calls", metric_pb2.AGGREGATION_UNIQUE_COUNT, "user")
    alert = await caller.create(usage_alert("100"))
    for number, user in enumerate(("ann", "bob", "ann", "cem")):
        time = NOON - timedelta(days=8 - 2 * number)
        await caller.send(caller.event(f"e{number}", "1", at=time, user=user))
    assert values(await course(caller, alert.alert_id)) == ["0", "1", "2", "3"]


async def test_only_the_events_of_the_group_and_the_currency_count(caller: Caller) -> None:
    by_region = await caller.create(usage_alert("100", groups=[("region", None)]))
    spend = await caller.create(spend_alert("100"))
    await caller.send(
        caller.event("e1", "3", cost="1.5", region="eu"),
        caller.event("e2", "4", cost="2", region="us"),
        caller.event("e3", "5"),
    )
    eu = await course(caller, by_region.alert_id, group=[GroupValue(key="region", value="eu")])
    assert values(eu) == ["0", "3"]
    assert values(await course(caller, spend.alert_id)) == ["0", "3.5"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await course(caller, by_region.alert_id)
    assert violations_of(caught.value) == ["group"]


async def test_an_earlier_period_is_shown_as_a_whole(caller: Caller) -> None:
    alert = await caller.create(usage_alert("100"))
    await caller.send(caller.event("e1", "3", at=NOON - timedelta(days=30)), caller.event("e2", "4"))
    answer = await course(caller, alert.alert_id, period_time=to_timestamp(NOON - timedelta(days=30)))
    assert values(answer) == ["0", "3"]
    assert answer.points[-1].point_time == answer.gauge.billing_period.end_time


async def test_what_has_no_course_is_refused(caller: Caller) -> None:
    await caller.send(caller.event("e1", "3"))
    other = await caller.create(usage_alert("10", scope=on_customer("globex")))
    for alert_id, customer, reason in (
        (other.alert_id, "acme", "ERROR_REASON_ALERT_NOT_FOUND"),
        ("alt_unknown", "acme", "ERROR_REASON_ALERT_NOT_FOUND"),
        (other.alert_id, "nobody", "ERROR_REASON_CUSTOMER_NOT_FOUND"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await course(caller, alert_id, customer)
        assert reason_of(caught.value) == reason
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await course(caller, other.alert_id, "globex", point_count=-1)
    assert violations_of(caught.value) == ["point_count"]


@own_database
async def test_of_very_many_events_a_sample_has_the_same_course(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "MAX_EVENTS", 400)
    alert = await caller.create(usage_alert("100000000"))
    random = Random(3)
    events = []
    for number in range(4_000):
        # In two calendar months, and so in two partitions; most of them late in the period.
        age = timedelta(hours=340 * random.random() ** 2)
        events.append(caller.event(f"e{number}", "10", at=NOON - age))
    for first in range(0, len(events), 1_000):
        await caller.send(*events[first : first + 1_000])
    answer = await course(caller, alert.alert_id, point_count=POINTS)
    assert not answer.is_exact
    assert 100 < answer.event_count <= 800, "the cost does not grow with the events"
    points = [(point.point_time.ToDatetime(), Decimal(point.value)) for point in answer.points]
    assert points[-1][1] == 40_000
    assert [value for _, value in points] == sorted(value for _, value in points)
    for time, value in points[1:]:
        true = 10 * sum(1 for event in events if event.event_time.ToDatetime() < time)
        assert abs(value - true) < 4_000, (time, value, true)
    assert answer.points == (await course(caller, alert.alert_id, point_count=POINTS)).points, "and is repeatable"


@own_database
async def test_what_is_held_does_not_move_the_course_of_an_alert_that_counts_it(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert = await caller.create(counting_held())
    for first in range(0, 2_000, 1_000):
        await caller.send(*(caller.event(f"e{first + number}", "10") for number in range(1_000)))
    async with gateway_of(caller) as gateway:
        await gateway.reserve("r1", "30000")
    exact = await course(caller, alert.alert_id)
    assert (exact.is_exact, exact.gauge.value, exact.points[-1].value) == (True, "50000", "20000")
    monkeypatch.setattr(series, "MAX_EVENTS", 200)
    sampled = await course(caller, alert.alert_id)
    assert (sampled.is_exact, sampled.gauge.value, sampled.points[-1].value) == (False, "50000", "20000")


@own_database
async def test_a_sample_of_a_period_that_no_alert_watched_is_scaled_by_its_share(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = NOON - timedelta(days=30)
    for first in range(0, 4_000, 1_000):
        await caller.send(*(caller.event(f"e{first + number}", "10", at=before) for number in range(1_000)))
    alert = await caller.create(usage_alert("100000000"))
    monkeypatch.setattr(series, "MAX_EVENTS", 400)
    answer = await course(caller, alert.alert_id, period_time=to_timestamp(before))
    assert not answer.is_exact
    assert abs(Decimal(answer.points[-1].value) - 40_000) < 10_000


async def test_a_preview_says_what_an_alert_would_say_and_stores_nothing(caller: Caller) -> None:
    await caller.send(caller.event("e1", "7"))
    request = messages.PreviewAlertRequest(customer_id="acme", alert=usage_alert("5", "10"))
    answer = await caller.alerts.PreviewAlert(request, metadata=caller.metadata)
    [gauge] = answer.explanation.gauges
    assert gauge.gauge.value == "7"
    by_level = {one.level: one.distance for one in gauge.thresholds}
    assert by_level == {"5": "", "10": "3"}
    listed = await caller.alerts.ListAlerts(messages.ListAlertsRequest(), metadata=caller.metadata)
    assert not listed.alerts
    unknown = messages.PreviewAlertRequest(customer_id="acme", alert=usage_alert("5", metric="misspelt"))
    answer = await caller.alerts.PreviewAlert(unknown, metadata=caller.metadata)
    assert [one.unknown_id for one in answer.warnings] == ["misspelt"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.alerts.PreviewAlert(
            messages.PreviewAlertRequest(customer_id="acme", alert=usage_alert("x")), metadata=caller.metadata
        )
    assert violations_of(caught.value) == ["alert.thresholds[0].value"]
