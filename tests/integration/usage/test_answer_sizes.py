"""Every answer has at most 2 MiB, and counts what it omits."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    endpoint_pb2,
    filter_pb2,
    notification_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
    usage_pb2,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from generated.tidemark.v1.event_type_pb2 import EventType
from server.calls.answer_size import CLIENT_LIMIT, DEFAULT_ANSWER_BYTES, MAX_DEFINITION_BYTES
from tests.support.server.running import reason_of, status_of, violations_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, beside, everything, settings, usage_alert

pytestmark = shares_server


WIDE = "👍"  # four bytes of UTF-8 in one character
LONG_CODES = [threshold_pb2.Threshold(value=str(level), code=f"{level:03d}" + WIDE * 125) for level in range(1, 21)]


async def listed(caller: Caller, start: Timestamp, customers: Iterable[str]) -> list[notification_pb2.Notification]:
    """The notifications of these customers since a time, from all pages."""
    request = alert_service_pb2.ListNotificationsRequest(start_time=start, customer_ids=customers, page_size=1000)
    found: list[notification_pb2.Notification] = []
    while True:
        answer = await caller.alerts.ListNotifications(request, metadata=caller.metadata)
        found += answer.notifications
        if not answer.next_page_token:
            return found
        assert answer.notifications
        request.page_token = answer.next_page_token


@pytest.mark.parametrize("streamed", [False, True])
async def test_transitions_that_do_not_fit_are_counted_as_omitted_and_notified(
    caller: Caller, streamed: bool
) -> None:
    await caller.create(usage_alert(thresholds=LONG_CODES))
    customers = [f"customer-{number:03d}" for number in range(200)]
    events = [caller.event("e", "20", customer) for customer in customers]
    if streamed:
        stream = caller.stream()
        await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=events)))
        [streamed_answer], error = await everything(stream)
        assert error is None
        answer = streamed_answer.outcome
    else:
        answer = await caller.send(*events)
    assert (answer.accepted, len(answer.rejected)) == (200, 0)
    assert DEFAULT_ANSWER_BYTES * 9 // 10 < answer.ByteSize() <= DEFAULT_ANSWER_BYTES
    assert len(answer.transitions) + answer.omitted.transition_count == 200 * 20
    assert (answer.omitted.gauge_count, answer.omitted.rejection_count) == (0, 0)
    answered = {one.notification_id for one in answer.transitions}
    found = [
        one
        for start in range(0, 200, 100)
        for one in await listed(caller, answer.omitted.ingest_time, customers[start : start + 100])
    ]
    assert {one.customer_id for one in found} == set(customers)
    assert answered < {one.notification_id for one in found}
    again = await caller.send(*events)
    assert (again.duplicates, len(again.transitions), again.HasField("omitted")) == (200, 0, False)


async def test_gauges_that_do_not_fit_are_counted_as_omitted_and_transitions_take_precedence(caller: Caller) -> None:
    keys = [letter * 128 for letter in "abc"]
    await caller.create(usage_alert("2", groups=[(key, None) for key in keys]))
    events = [caller.event(f"e{number}") for number in range(700)]
    for number, event in enumerate(events):
        event.properties.update(dict.fromkeys(keys, f"{number:04d}" + WIDE * 252))
    events.append(caller.event("crosses", "2"))
    events[-1].properties.update(dict.fromkeys(keys, "x"))
    answer = await caller.send(*events, gauges=True)
    assert answer.accepted == 701
    assert [one.event_id for one in answer.transitions] == ["crosses"]
    assert DEFAULT_ANSWER_BYTES * 9 // 10 < answer.ByteSize() <= DEFAULT_ANSWER_BYTES
    assert len(answer.gauges) + answer.omitted.gauge_count == 701
    assert answer.omitted == usage_pb2.OmittedResults(gauge_count=701 - len(answer.gauges))


async def test_answer_has_every_rejection_of_the_largest_default_batch(caller: Caller) -> None:
    events = [caller.event(f"{number:04d}" + WIDE * 120, "NaN") for number in range(4_990)]
    answer = await caller.send(*events, *(caller.event(f"good-{number}") for number in range(10)))
    assert answer.accepted == 10
    assert [one.index for one in answer.rejected] == list(range(4_990))
    assert not answer.HasField("omitted")
    assert answer.ByteSize() <= DEFAULT_ANSWER_BYTES


async def test_rejections_that_do_not_fit_are_counted_as_omitted_and_answered_on_a_resend(
    caller: Caller,
) -> None:
    large = replace(settings(), max_batch_events=50_000)
    async with beside(caller, large) as other:
        events = [other.event(f"{number:05d}" + WIDE * 35, "NaN") for number in range(12_000)]
        events[11_990:] = [other.event(f"good-{number}") for number in range(10)]
        answer = await other.send(*events)
        shown = len(answer.rejected)
        assert answer.accepted == 10
        assert 0 < shown < 11_990
        assert [one.index for one in answer.rejected] == list(range(shown))
        assert answer.omitted.rejection_count == 11_990 - shown
        assert answer.ByteSize() <= DEFAULT_ANSWER_BYTES
        rest = await other.send(*events[shown:])
    assert (rest.accepted, rest.duplicates) == (0, 10)
    assert [one.index for one in rest.rejected] == list(range(11_990 - shown))
    assert {one.status.code for one in rest.rejected} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}


def overridden(regions: int) -> alert_pb2.Alert:
    """An alert with threshold overrides for so many groups, 11 kB each."""
    return alert_pb2.Alert(
        display_name="by region",
        scope=scope_pb2.AlertScope(
            subscription=scope_pb2.SubscriptionScope(customer_id="acme", subscription_id="acme-pro")
        ),
        thresholds=LONG_CODES,
        cost_exceeded=condition_pb2.CostExceededCondition(
            currency="USD",
            grouping_keys=["region"],
            threshold_overrides=[
                threshold_pb2.ThresholdOverride(
                    group_values=[filter_pb2.GroupSelector(key="region", value=f"region-{region}")],
                    thresholds=LONG_CODES,
                )
                for region in range(regions)
            ],
        ),
    )


async def test_large_alert_and_its_states_fit_into_their_answers(caller: Caller) -> None:
    too_large = overridden(110)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.create_only(too_large)
    assert reason_of(refused.value) == "ERROR_REASON_INVALID_FIELD"
    assert violations_of(refused.value) == ["alert"]
    created = await caller.create_only(overridden(95))
    assert MAX_DEFINITION_BYTES * 8 // 10 < created.ByteSize() <= MAX_DEFINITION_BYTES
    too_large.alert_id = created.alert_id
    request = alert_service_pb2.UpdateAlertRequest(alert=too_large)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    assert violations_of(refused.value) == ["alert"]
    events = [
        caller.event(f"e{number}", "1", cost="25", subscription="acme-pro", region=f"{number:03d}" + WIDE * 253)
        for number in range(120)
    ]
    assert (await caller.send(*events)).accepted == 120
    known = await caller.state(created.alert_id)
    assert DEFAULT_ANSWER_BYTES * 9 // 10 < known.ByteSize() <= DEFAULT_ANSWER_BYTES
    assert 0 < len(known.gauges) < 100
    assert known.gauges_truncated
    page = alert_service_pb2.ListCustomerAlertsRequest(customer_id="acme", page_size=1000)
    [shown] = (await caller.alerts.ListCustomerAlerts(page, metadata=caller.metadata)).customer_alerts
    assert shown.gauges_truncated
    reset = alert_service_pb2.ResetCustomerAlertRequest(alert_id=created.alert_id, customer_id="acme")
    answer = await caller.alerts.ResetCustomerAlert(reset, metadata=caller.metadata)
    assert answer.customer_alert.gauges_truncated
    history = alert_service_pb2.ListAlertChangesRequest(alert_id=created.alert_id)
    renamed = alert_service_pb2.UpdateAlertRequest(
        alert=alert_pb2.Alert(alert_id=created.alert_id, display_name="renamed")
    )
    await caller.alerts.UpdateAlert(renamed, metadata=caller.metadata)
    sizes: list[int] = []
    while not sizes or history.page_token:  # three changes are larger than a page may be
        changes = await caller.alerts.ListAlertChanges(history, metadata=caller.metadata)
        assert changes.ByteSize() <= DEFAULT_ANSWER_BYTES
        sizes.append(len(changes.changes))
        history.page_token = changes.next_page_token
    assert (sum(sizes), min(sizes)) == (3, 1)


async def test_page_of_large_customers_ends_before_its_page_size(caller: Caller) -> None:
    fields = {f"{number:02d}" + WIDE * 126: WIDE * 256 for number in range(64)}
    ids = [f"customer-{number:02d}" for number in range(45)]
    await asyncio.gather(
        *(caller.put_customer(customer_pb2.Customer(customer_id=one, custom_fields=fields)) for one in ids)
    )
    await asyncio.gather(
        *(
            caller.put_subscription(
                subscription_pb2.Subscription(customer_id=one, subscription_id="pro", custom_fields=fields)
            )
            for one in ids
        )
    )
    found: dict[str, list[str]] = {"customers": [], "subscriptions": []}
    customers = account_service_pb2.ListCustomersRequest()
    while True:
        page = await caller.accounts.ListCustomers(customers, metadata=caller.metadata)
        found["customers"] += [one.customer_id for one in page.customers]
        if not page.next_page_token:
            break
        customers.page_token = page.next_page_token
    subscriptions = account_service_pb2.ListSubscriptionsRequest()
    while True:
        other = await caller.accounts.ListSubscriptions(subscriptions, metadata=caller.metadata)
        found["subscriptions"] += [one.customer_id for one in other.subscriptions]
        if not other.next_page_token:
            break
        subscriptions.page_token = other.next_page_token
    assert found == {"customers": ids, "subscriptions": ids}


async def test_refusal_of_thousands_of_fields_is_readable(caller: Caller) -> None:
    stub = webhook_service_pb2_grpc.WebhookServiceStub(caller.server.channel)
    sent = endpoint_pb2.Endpoint(
        url="https://example.com/hook",
        event_types=[EventType.ValueType(number) for number in range(100, 2_100)],
        labels={f"{number}" + WIDE * 64: WIDE * 513 for number in range(500)},
        headers={f"{WIDE}{number}": WIDE for number in range(500)},
    )
    metadata = (*caller.metadata, ("x-request-id", "r" * 128))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateEndpoint(webhook_service_pb2.CreateEndpointRequest(endpoint=sent), metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "ERROR_REASON_INVALID_FIELD"
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status_of(refused.value).details)
    assert bad.field_violations[0].field == "endpoint.labels"
    assert "more violations" in bad.field_violations[-1].description


def test_size_limits_are_below_the_default_limit_of_clients() -> None:
    assert MAX_DEFINITION_BYTES < DEFAULT_ANSWER_BYTES < CLIENT_LIMIT == 4 * 1024 * 1024
    assert usage_pb2.OmittedResults().ByteSize() == 0
