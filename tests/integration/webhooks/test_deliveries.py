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
    EVENT_TYPE_ALERT_REACHED,
    EVENT_TYPE_ALERT_RESOLVED,
    EVENT_TYPE_UNSPECIFIED,
    EventType,
)
from generated.tidemark.v1.list_order_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    LIST_ORDER_UNSPECIFIED,
    ListOrder,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    CreateEndpointResponse,
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
from webhooks.deliveries import DeliveryStatus, Outcome, Trigger
from webhooks.health import BreakerState, DisableReason

URL = "https://hooks.example.com/tidemark"


async def create(webhooks: WebhookServiceStub, clock: ManualClock, number: int = 1) -> list[CreateEndpointResponse]:
    created = []
    for index in range(number):
        clock.advance(timedelta(seconds=1))
        created.append(await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=f"{URL}/{index}"))))
    return created


async def test_an_endpoint_shows_its_secret_once(webhooks: WebhookServiceStub) -> None:
    request = CreateEndpointRequest(
        endpoint=Endpoint(url=URL, display_name="für Menschen", event_types=[EVENT_TYPE_ALERT_RESOLVED] * 2)
    )
    created = await webhooks.CreateEndpoint(request)
    assert created.secret.startswith("whsec_")
    assert created.endpoint.endpoint_id.startswith("whe_")
    assert len(created.endpoint.endpoint_id) == 30
    assert created.endpoint.url == URL
    assert created.endpoint.display_name == "für Menschen"
    assert list(created.endpoint.event_types) == [EVENT_TYPE_ALERT_RESOLVED]
    assert created.endpoint.state == endpoint_pb2.ENDPOINT_STATE_ENABLED
    read = await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    assert read.endpoint == created.endpoint
    listed = await webhooks.ListEndpoints(ListEndpointsRequest())
    assert list(listed.endpoints) == [created.endpoint]
    assert created.secret not in str(read) + str(listed)


async def test_all_faults_of_an_endpoint_are_reported_together(webhooks: WebhookServiceStub) -> None:
    request = CreateEndpointRequest(
        endpoint=Endpoint(
            url="https://127.0.0.1/hook",
            display_name="a\x00b",
            event_types=[EVENT_TYPE_ALERT_REACHED, EventType.ValueType(77), EVENT_TYPE_UNSPECIFIED],
        )
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.CreateEndpoint(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(caught.value) == [
        "endpoint.url",
        "endpoint.display_name",
        "endpoint.event_types[1]",
        "endpoint.event_types[2]",
    ]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "endpoint.url: it is required"),
        ("http://hooks.example.com/", "endpoint.url: it must begin with https://"),
        (
            "https://10.0.0.1/",
            "endpoint.url: it leads to an address that is refused: 10.0.0.1 is not a public address",
        ),
        ("https://user:password@example.com/", "endpoint.url: it must not carry a user name or a password"),
    ],
)
async def test_an_endpoint_with_a_forbidden_url_is_refused(
    webhooks: WebhookServiceStub, url: str, complaint: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=url)))
    details = caught.value.details() or ""
    assert details.startswith(complaint)
    assert "password@" not in details


async def test_pages_of_endpoints_hold_each_once_in_order(webhooks: WebhookServiceStub, clock: ManualClock) -> None:
    created = [answer.endpoint for answer in await create(webhooks, clock, 5)]
    listed: list[endpoint_pb2.Endpoint] = []
    token = ""
    while True:
        page = await webhooks.ListEndpoints(ListEndpointsRequest(page_size=2, page_token=token))
        listed += page.endpoints
        token = page.next_page_token
        if not token:
            break
    assert listed == created


async def test_deliveries_of_a_deleted_endpoint_stay_readable(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    [created] = await create(webhooks, clock)
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
    first, second = (answer.endpoint.endpoint_id for answer in await create(webhooks, clock, 2))
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
    first, _ = (answer.endpoint.endpoint_id for answer in await create(webhooks, clock, 2))
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
        await create(webhooks, clock, 2)
        house = await House.build(database, clock)
        await house.notify(3)
        await attempt_all(house, DeliveryStatus.DELIVERED)
        request = ListDeliveriesRequest(page_size=1, include_total_size=True)
        assert (await webhooks.ListDeliveries(request)).total_size == 5


async def test_the_filters_of_a_redelivery_have_the_names_and_numbers_of_the_list() -> None:
    fields = RedeliverDeliveriesRequest.DESCRIPTOR.fields_by_name
    for name in ("statuses", "event_types", "customer_id", "start_time", "end_time"):
        assert fields[name].number == ListDeliveriesRequest.DESCRIPTOR.fields_by_name[name].number


async def test_endpoints_are_listed_by_filter_and_order(webhooks: WebhookServiceStub, clock: ManualClock) -> None:
    made: list[Endpoint] = []
    for name, labels, state in (
        ("eu billing", {"team": "billing", "zone": "eu"}, endpoint_pb2.ENDPOINT_STATE_ENABLED),
        ("eu support", {"team": "support", "zone": "eu"}, endpoint_pb2.ENDPOINT_STATE_DISABLED),
        ("us_1%", {"team": "billing", "zone": ""}, endpoint_pb2.ENDPOINT_STATE_ENABLED),
        ("us_1", {}, endpoint_pb2.ENDPOINT_STATE_DISABLED),
    ):
        new = Endpoint(url=URL, display_name=name, labels=labels, state=state)
        made.append((await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=new))).endpoint)
        clock.advance(timedelta(minutes=1))
    billing, support, percent, plain = made

    async def listed(**fields: Any) -> list[Endpoint]:
        answer = await webhooks.ListEndpoints(ListEndpointsRequest(include_total_size=True, **fields))
        assert answer.total_size == len(answer.endpoints)
        return list(answer.endpoints)

    assert await listed() == made
    assert await listed(order=LIST_ORDER_NEWEST_FIRST) == made[::-1]
    assert await listed(labels={"team": "billing"}) == [billing, percent]
    assert await listed(labels={"team": "billing", "zone": "eu"}) == [billing]
    assert await listed(labels={"zone": ""}) == [percent]
    assert await listed(labels={"team": "sales"}) == []
    assert await listed(display_name_prefix="eu ") == [billing, support]
    assert await listed(display_name_prefix="us_1%") == [percent]
    assert await listed(display_name_prefix="EU") == []
    assert await listed(states=[endpoint_pb2.ENDPOINT_STATE_DISABLED]) == [support, plain]
    assert await listed(states=list(endpoint_pb2.EndpointState.values())[1:]) == made
    assert await listed(start_time=support.create_time, end_time=plain.create_time) == [support, percent]
    assert await listed(labels={"zone": "eu"}, states=[endpoint_pb2.ENDPOINT_STATE_DISABLED]) == [support]
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=percent.endpoint_id))
    assert await listed(labels={"team": "billing"}) == [billing]
    assert not (await webhooks.ListEndpoints(ListEndpointsRequest())).HasField("total_size")

    newest = ListEndpointsRequest(page_size=2, order=LIST_ORDER_NEWEST_FIRST, include_total_size=True)
    first_page = await webhooks.ListEndpoints(newest)
    newest.page_token = first_page.next_page_token
    rest = await webhooks.ListEndpoints(newest)
    assert [*first_page.endpoints, *rest.endpoints] == [plain, support, billing]
    assert (first_page.total_size, rest.total_size, rest.next_page_token) == (3, 3, "")
    newest.order = LIST_ORDER_OLDEST_FIRST
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListEndpoints(newest)
    assert reason_of(caught.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_all_faults_of_a_list_of_endpoints_are_reported_together(webhooks: WebhookServiceStub) -> None:
    request = ListEndpointsRequest(
        states=[endpoint_pb2.ENDPOINT_STATE_UNSPECIFIED, endpoint_pb2.ENDPOINT_STATE_ENABLED],
        labels={"Team": "x"},
        display_name_prefix="x" * 257,
        order=ListOrder.ValueType(9),
        page_size=-1,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListEndpoints(request)
    assert violations_of(caught.value) == ["states[0]", "labels['Team']", "display_name_prefix", "order", "page_size"]


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
    await create(webhooks, clock)
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
    await create(webhooks, clock)
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
        (delivery_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_", Outcome),
        (delivery_pb2.DeliveryStatus, "DELIVERY_STATUS_", DeliveryStatus),
        (endpoint_pb2.EndpointState, "ENDPOINT_STATE_", EndpointState),
        (endpoint_pb2.DisableReason, "DISABLE_REASON_", {*DisableReason, "NONE"}),
        (endpoint_pb2.BreakerState, "BREAKER_STATE_", BreakerState),
        (delivery_pb2.DeliveryTrigger, "DELIVERY_TRIGGER_", Trigger),
        (redelivery_job_pb2.RedeliveryKind, "REDELIVERY_KIND_", JobKind),
        (redelivery_job_pb2.RedeliveryState, "REDELIVERY_STATE_", JobState),
    ):
        assert {name.removeprefix(prefix) for name in enum.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"} == set(words)
