"""WebhookService over a real channel: endpoints, deliveries, attempts, and the isolation of organizations."""

from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    delivery_pb2,
    endpoint_pb2,
    redelivery_job_pb2,
)
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ALERT_RESOLVED,
    EVENT_TYPE_UNSPECIFIED,
)
from generated.tidemark.v1.list_order_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    LIST_ORDER_UNSPECIFIED,
    ListOrder,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    DeleteEndpointRequest,
    GetDeliveryRequest,
    GetEndpointRequest,
    ListAttemptsRequest,
    ListDeliveriesRequest,
    ListEndpointsRequest,
    RedeliverDeliveriesRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from server.limits import ServerLimits
from store.deliveries.redelivery_jobs import JobKind, JobState
from store.endpoints.rows import EndpointState
from store.identity import keys
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.server.running import reason_of, running, violations_of
from tests.support.webhooks.attempts import DURATION, START, attempt_all
from tests.support.webhooks.endpoints import URL, create_endpoints
from webhooks.deliveries import AttemptOutcome, DeliveryStatus, Trigger
from webhooks.health import BreakerState, DisableReason


async def test_deliveries_of_a_deleted_endpoint_stay_readable(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    [created] = await create_endpoints(webhooks, clock)
    house = await House.build(database, clock)
    await house.notify(2)
    await attempt_all(house, DeliveryStatus.PENDING, timedelta(hours=1))
    endpoint_id = created.endpoint.endpoint_id
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=endpoint_id))
    for call in (
        webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=endpoint_id)),
        webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=endpoint_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason_of(caught.value) == "ERROR_REASON_ENDPOINT_NOT_FOUND"
    assert not (await webhooks.ListEndpoints(ListEndpointsRequest())).endpoints
    listed = await webhooks.ListDeliveries(ListDeliveriesRequest(endpoint_id=endpoint_id))
    assert [item.status for item in listed.deliveries] == [delivery_pb2.DELIVERY_STATUS_CANCELLED] * 2
    assert all(item.HasField("finish_time") for item in listed.deliveries)
    assert not any(item.HasField("next_attempt_time") for item in listed.deliveries)


async def test_deliveries_are_listed_by_filter_and_page(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    first, second = (answer.endpoint.endpoint_id for answer in await create_endpoints(webhooks, clock, 2))
    house = await House.build(database, clock)
    ids = await house.notify(3)
    await attempt_all(house, DeliveryStatus.DELIVERED)
    await house.notify()
    await attempt_all(house, DeliveryStatus.PENDING, timedelta(hours=1))

    async def listed(request: ListDeliveriesRequest) -> list[delivery_pb2.Delivery]:
        return list((await webhooks.ListDeliveries(request)).deliveries)

    everything = await listed(ListDeliveriesRequest())
    assert len(everything) == 8
    assert len({item.delivery_id for item in everything}) == 8
    times = [item.create_time.ToDatetime() for item in everything]
    assert times == sorted(times, reverse=True)
    assert len(await listed(ListDeliveriesRequest(endpoint_id=first))) == 4
    of_one = await listed(ListDeliveriesRequest(notification_id=ids[0]))
    assert {item.endpoint_id for item in of_one} == {first, second}
    pending = await listed(ListDeliveriesRequest(statuses=[delivery_pb2.DELIVERY_STATUS_PENDING]))
    assert [item.attempt_count for item in pending] == [1, 1]
    assert all(item.HasField("next_attempt_time") for item in pending)
    assert len(await listed(ListDeliveriesRequest(customer_id="customer-1"))) == 8
    assert await listed(ListDeliveriesRequest(customer_id="customer-2")) == []
    assert await listed(ListDeliveriesRequest(event_types=[EVENT_TYPE_ALERT_RESOLVED])) == []
    newest = everything[0].create_time
    assert await listed(ListDeliveriesRequest(start_time=newest)) == everything[:2]
    assert await listed(ListDeliveriesRequest(end_time=newest)) == everything[2:]
    none = ListDeliveriesRequest(endpoint_id=first, statuses=[delivery_pb2.DELIVERY_STATUS_FAILED])
    assert await listed(none) == []

    several = [delivery_pb2.DELIVERY_STATUS_PENDING, delivery_pb2.DELIVERY_STATUS_DELIVERED]
    assert await listed(ListDeliveriesRequest(statuses=several)) == everything

    for order, expected in (
        (LIST_ORDER_UNSPECIFIED, everything),
        (LIST_ORDER_NEWEST_FIRST, everything),
        (LIST_ORDER_OLDEST_FIRST, everything[::-1]),
    ):
        paged: list[delivery_pb2.Delivery] = []
        token = ""
        for _ in range(3):
            request = ListDeliveriesRequest(page_size=3, page_token=token, order=order, include_total_size=True)
            page = await webhooks.ListDeliveries(request)
            assert page.total_size == 8
            paged += page.deliveries
            token = page.next_page_token
        assert (paged, token) == (expected, "")


async def test_the_total_size_of_deliveries_follows_the_filters(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    first, _ = (answer.endpoint.endpoint_id for answer in await create_endpoints(webhooks, clock, 2))
    house = await House.build(database, clock)
    await house.notify(3)
    await attempt_all(house, DeliveryStatus.DELIVERED)

    async def total(**filters: Any) -> int:
        request = ListDeliveriesRequest(page_size=1, include_total_size=True, **filters)
        return (await webhooks.ListDeliveries(request)).total_size

    assert await total() == 6
    assert await total(endpoint_id=first) == 3
    assert await total(statuses=[delivery_pb2.DELIVERY_STATUS_FAILED]) == 0
    assert not (await webhooks.ListDeliveries(ListDeliveriesRequest())).HasField("total_size")


async def test_the_total_size_of_deliveries_is_bounded(database: Database, clock: ManualClock) -> None:
    async with running(database, clock, server_limits=ServerLimits(counted_deliveries=5)) as server:
        webhooks = WebhookServiceStub(server.channel)
        await create_endpoints(webhooks, clock, 2)
        house = await House.build(database, clock)
        await house.notify(3)
        await attempt_all(house, DeliveryStatus.DELIVERED)
        request = ListDeliveriesRequest(page_size=1, include_total_size=True)
        assert (await webhooks.ListDeliveries(request)).total_size == 5


async def test_the_filters_of_a_redelivery_have_the_names_and_numbers_of_the_list() -> None:
    fields = RedeliverDeliveriesRequest.DESCRIPTOR.fields_by_name
    for name in ("statuses", "event_types", "customer_id", "start_time", "end_time"):
        assert fields[name].number == ListDeliveriesRequest.DESCRIPTOR.fields_by_name[name].number


async def test_organizations_count_their_own_endpoints_and_deliveries(database: Database, clock: ManualClock) -> None:
    async with database.transaction() as connection:
        callers = [await keys.create_key(connection, name, clock.now()) for name in ("ours", "theirs")]
    async with running(database, clock) as server:
        webhooks = WebhookServiceStub(server.channel)
        sizes = []
        for number, caller in enumerate(callers, 1):
            metadata = (("authorization", f"Bearer {caller.key}"),)
            for _ in range(number):
                new = Endpoint(url=URL, labels={"team": "billing"})
                await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=new), metadata=metadata)
            house = await House.build(database, clock, caller.organization.name)
            await house.notify()
        await attempt_all(house, DeliveryStatus.DELIVERED)
        for caller in callers:
            metadata = (("authorization", f"Bearer {caller.key}"),)
            wanted = ListEndpointsRequest(labels={"team": "billing"}, include_total_size=True)
            of_deliveries = ListDeliveriesRequest(include_total_size=True)
            sizes += [
                (await webhooks.ListEndpoints(wanted, metadata=metadata)).total_size,
                (await webhooks.ListDeliveries(of_deliveries, metadata=metadata)).total_size,
            ]
    assert sizes == [1, 1, 2, 2]


async def test_a_page_token_is_refused_with_other_filters(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    await create_endpoints(webhooks, clock)
    house = await House.build(database, clock)
    await house.notify(3)
    await attempt_all(house, DeliveryStatus.DELIVERED)
    page = await webhooks.ListDeliveries(ListDeliveriesRequest(page_size=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListDeliveries(
            ListDeliveriesRequest(
                page_size=1, page_token=page.next_page_token, statuses=[delivery_pb2.DELIVERY_STATUS_FAILED]
            )
        )
    assert reason_of(caught.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_a_list_with_an_unknown_status_is_refused(webhooks: WebhookServiceStub) -> None:
    statuses = [
        delivery_pb2.DELIVERY_STATUS_FAILED,
        delivery_pb2.DELIVERY_STATUS_UNSPECIFIED,
        delivery_pb2.DeliveryStatus.ValueType(99),
    ]
    request = ListDeliveriesRequest(
        statuses=statuses, event_types=[EVENT_TYPE_UNSPECIFIED], order=ListOrder.ValueType(9)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListDeliveries(request)
    assert violations_of(caught.value) == ["statuses[1]", "statuses[2]", "event_types[0]", "order"]


async def test_attempts_are_listed_in_their_order(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    await create_endpoints(webhooks, clock)
    house = await House.build(database, clock)
    await house.notify()
    await attempt_all(house, DeliveryStatus.PENDING, timedelta(0))
    await attempt_all(house, DeliveryStatus.PENDING, timedelta(0))
    await attempt_all(house, DeliveryStatus.DELIVERED)
    [delivery] = (await webhooks.ListDeliveries(ListDeliveriesRequest())).deliveries
    first = await webhooks.ListAttempts(ListAttemptsRequest(delivery_id=delivery.delivery_id, page_size=2))
    rest = await webhooks.ListAttempts(
        ListAttemptsRequest(delivery_id=delivery.delivery_id, page_size=2, page_token=first.next_page_token)
    )
    attempts = [*first.attempts, *rest.attempts]
    assert not rest.next_page_token
    assert [attempt.attempt_number for attempt in attempts] == [1, 2, 3]
    assert attempts[0].outcome == delivery_pb2.ATTEMPT_OUTCOME_SERVER_ERROR
    assert attempts[0].error == "out of order"
    assert not attempts[0].HasField("http_status")
    assert attempts[2].outcome == delivery_pb2.ATTEMPT_OUTCOME_DELIVERED
    assert attempts[2].http_status == 200
    assert attempts[2].response_excerpt == "räsponse"
    assert attempts[2].start_time.ToDatetime(UTC) == START
    assert attempts[2].duration.ToTimedelta() == DURATION
    assert attempts[2].trigger == delivery_pb2.DELIVERY_TRIGGER_AUTOMATIC
    assert attempts[2].remote_address == "192.0.2.7"
    assert list(attempts[2].signing_key_sequences) == [1]
    whole = await webhooks.GetDelivery(GetDeliveryRequest(delivery_id=delivery.delivery_id))
    assert (whole.delivery, list(whole.attempts)) == (delivery, attempts)


async def test_attempts_of_an_unknown_delivery_are_not_found(webhooks: WebhookServiceStub) -> None:
    for call in (
        webhooks.ListAttempts(ListAttemptsRequest(delivery_id="whd_nothing")),
        webhooks.GetDelivery(GetDeliveryRequest(delivery_id="whd_nothing")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason_of(caught.value) == "ERROR_REASON_DELIVERY_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListAttempts(ListAttemptsRequest())
    assert violations_of(caught.value) == ["delivery_id"]


async def test_an_organization_neither_reads_nor_changes_endpoints_of_another(
    database: Database, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        ours = await keys.create_key(connection, "ours", clock.now())
        theirs = await keys.create_key(connection, "theirs", clock.now())

    def as_(key: keys.CreatedKey) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {key.key}"),)

    async with running(database, clock) as server:
        webhooks = WebhookServiceStub(server.channel)
        created = await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=URL)), metadata=as_(ours))
        house = await House.build(database, clock, "ours")
        await house.notify()
        await attempt_all(house, DeliveryStatus.DELIVERED)
        [delivery] = (await webhooks.ListDeliveries(ListDeliveriesRequest(), metadata=as_(ours))).deliveries

        endpoint_id = created.endpoint.endpoint_id
        for call in (
            webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=endpoint_id), metadata=as_(theirs)),
            webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=endpoint_id), metadata=as_(theirs)),
            webhooks.ListAttempts(ListAttemptsRequest(delivery_id=delivery.delivery_id), metadata=as_(theirs)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert not (await webhooks.ListEndpoints(ListEndpointsRequest(), metadata=as_(theirs))).endpoints
        seen = await webhooks.ListDeliveries(ListDeliveriesRequest(endpoint_id=endpoint_id), metadata=as_(theirs))
        assert not seen.deliveries
        still = await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=endpoint_id), metadata=as_(ours))
        assert still.endpoint.state == endpoint_pb2.ENDPOINT_STATE_ENABLED


def test_every_value_of_the_stores_enums_has_a_value_in_the_contract() -> None:
    for enum, prefix, words in (
        (delivery_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_", AttemptOutcome),
        (delivery_pb2.DeliveryStatus, "DELIVERY_STATUS_", DeliveryStatus),
        (endpoint_pb2.EndpointState, "ENDPOINT_STATE_", EndpointState),
        (endpoint_pb2.DisableReason, "DISABLE_REASON_", {*DisableReason, "NONE"}),
        (endpoint_pb2.BreakerState, "BREAKER_STATE_", BreakerState),
        (delivery_pb2.DeliveryTrigger, "DELIVERY_TRIGGER_", Trigger),
        (redelivery_job_pb2.RedeliveryKind, "REDELIVERY_KIND_", JobKind),
        (redelivery_job_pb2.RedeliveryState, "REDELIVERY_STATE_", JobState),
    ):
        assert {name.removeprefix(prefix) for name in enum.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"} == set(words)
