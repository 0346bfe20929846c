"""Endpoints: their settings, refused settings, health, and pending deliveries when they are disabled."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import select, text, update

from generated.tidemark.v1 import condition_pb2, endpoint_pb2
from generated.tidemark.v1.endpoint_pb2 import BasicCredentials, BearerCredentials, Endpoint, EndpointCredentials
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_ALERT_REACHED, EVENT_TYPE_ENDPOINT_DISABLED
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    DeleteEndpointRequest,
    DisableEndpointRequest,
    EnableEndpointRequest,
    GetEndpointRequest,
    RotateSecretRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from store.deliveries import outbox
from store.endpoints.endpoints import MAX_ENDPOINTS
from store.postgres.database import Database
from store.tables.webhooks import endpoint, endpoint_secret
from tests.support.notifier.house import BOX, House
from tests.support.server.running import reason_of, violations_of
from webhooks.deliveries import DeliveryStatus
from webhooks.secret_box import credentials_context

URL = "https://hooks.example.com/tidemark"
OTHER_URL = "https://hooks.example.org/other"

FULL = Endpoint(
    url=URL,
    display_name="für Menschen",
    labels={"team": "billing", "cost.center": "2 €"},
    event_types=[EVENT_TYPE_ALERT_REACHED, EVENT_TYPE_ENDPOINT_DISABLED],
    condition_types=[condition_pb2.CONDITION_TYPE_COST_EXCEEDED, condition_pb2.CONDITION_TYPE_USAGE_EXCEEDED],
    headers={"X-Tenant": "acme", "x-token": "a, b", "Accept": "application/json"},
    credentials=EndpointCredentials(bearer=BearerCredentials(token="hush-hush==")),
    rate_per_second="2.50",
    max_in_flight=7,
)


async def create(webhooks: WebhookServiceStub, new: Endpoint | None = None) -> Endpoint:
    return (await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=new or Endpoint(url=URL)))).endpoint


async def get(webhooks: WebhookServiceStub, endpoint_id: str) -> Endpoint:
    return (await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=endpoint_id))).endpoint


def masked(endpoint_id: str, *paths: str, values: Endpoint | None = None) -> UpdateEndpointRequest:
    """An update of those fields, with their `values`."""
    sent = Endpoint(endpoint_id=endpoint_id)
    if values is not None:
        sent.MergeFrom(values)
    return UpdateEndpointRequest(endpoint=sent, update_mask=FieldMask(paths=paths))


async def credentials_of(database: Database, endpoint_id: str) -> str | None:
    """What is stored as an endpoint's credentials, opened."""
    async with database.transaction() as connection:
        row = (
            await connection.execute(
                select(endpoint.c.organization_id, endpoint.c.credentials).where(
                    endpoint.c.endpoint_id == endpoint_id
                )
            )
        ).one()
    if row.credentials is None:
        return None
    assert b"hush" not in row.credentials
    return BOX.open(row.credentials, credentials_context(row.organization_id, endpoint_id)).decode()


async def test_every_setting_of_an_endpoint_comes_back(webhooks: WebhookServiceStub, database: Database) -> None:
    created = await create(webhooks, FULL)
    assert created == await get(webhooks, created.endpoint_id)
    assert (created.display_name, list(created.event_types)) == (
        "für Menschen",
        [EVENT_TYPE_ALERT_REACHED, EVENT_TYPE_ENDPOINT_DISABLED],
    )
    assert list(created.condition_types) == list(FULL.condition_types)
    assert (dict(created.labels), dict(created.headers)) == (dict(FULL.labels), dict(FULL.headers))
    assert (created.rate_per_second, created.max_in_flight) == ("2.5", 7)
    assert created.has_credentials
    assert "hush" not in str(created)
    assert await credentials_of(database, created.endpoint_id) == "Bearer hush-hush=="
    assert created.health.breaker_state == endpoint_pb2.BREAKER_STATE_CLOSED
    assert not created.HasField("update_time")
    [key] = created.signing_keys
    assert (key.sequence, key.scheme, key.public_key) == (1, endpoint_pb2.SIGNATURE_SCHEME_HMAC_SHA256, "")


async def test_a_new_endpoint_has_the_documented_defaults(webhooks: WebhookServiceStub, database: Database) -> None:
    created = await create(webhooks)
    assert (created.rate_per_second, created.max_in_flight, created.has_credentials) == ("", 4, False)
    assert (len(created.event_types), len(created.condition_types)) == (0, 0)
    assert (len(created.labels), len(created.headers)) == (0, 0)
    assert await credentials_of(database, created.endpoint_id) is None


async def test_a_refusal_does_not_repeat_a_secret(webhooks: WebhookServiceStub) -> None:
    new = Endpoint(url=URL, credentials=EndpointCredentials(bearer=BearerCredentials(token="hush hush")))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(webhooks, new)
    assert "hush" not in str(caught.value)


async def test_an_update_replaces_only_the_fields_of_its_mask(
    webhooks: WebhookServiceStub, clock: ManualClock, database: Database
) -> None:
    created = await create(webhooks, FULL)
    clock.advance(timedelta(minutes=1))
    changes = Endpoint(display_name="new", max_in_flight=1)
    answer = await webhooks.UpdateEndpoint(
        masked(created.endpoint_id, "display_name", "max_in_flight", "labels", "rate_per_second", values=changes)
    )
    updated = answer.endpoint
    assert updated == await get(webhooks, created.endpoint_id)
    assert updated.update_time.ToDatetime() - created.create_time.ToDatetime() == timedelta(minutes=1)
    expected = Endpoint()
    expected.CopyFrom(created)
    expected.display_name = "new"
    expected.max_in_flight = 1
    expected.labels.clear()
    expected.rate_per_second = ""
    expected.update_time.CopyFrom(updated.update_time)
    assert updated == expected
    assert await credentials_of(database, created.endpoint_id) == "Bearer hush-hush=="


async def test_an_update_replaces_and_clears_credentials(webhooks: WebhookServiceStub, database: Database) -> None:
    endpoint_id = (await create(webhooks, FULL)).endpoint_id
    basic = EndpointCredentials(basic=BasicCredentials(username="tide", password="hush: ö"))
    answer = await webhooks.UpdateEndpoint(masked(endpoint_id, "credentials", values=Endpoint(credentials=basic)))
    assert answer.endpoint.has_credentials
    assert await credentials_of(database, endpoint_id) == "Basic dGlkZTpodXNoOiDDtg=="
    answer = await webhooks.UpdateEndpoint(masked(endpoint_id, "credentials"))
    assert not answer.endpoint.has_credentials
    assert await credentials_of(database, endpoint_id) is None


async def test_the_mask_of_a_star_replaces_every_setting(webhooks: WebhookServiceStub) -> None:
    created = await create(webhooks, FULL)
    answer = await webhooks.UpdateEndpoint(masked(created.endpoint_id, "*", values=Endpoint(url=OTHER_URL)))
    plain = await create(webhooks, Endpoint(url=OTHER_URL))
    for name in ("endpoint_id", "signing_keys", "update_time"):
        for message in (answer.endpoint, plain):
            message.ClearField(name)
    assert answer.endpoint == plain


async def test_a_refused_update_changes_nothing(webhooks: WebhookServiceStub) -> None:
    created = await create(webhooks)
    for paths, values, wrong in (
        (["display_name", "url"], Endpoint(display_name="x"), ["endpoint.url"]),
        (["display_name", "create_time"], Endpoint(display_name="x"), ["update_mask.paths[1]"]),
        (["display_name", "state"], Endpoint(display_name="x"), ["endpoint.state"]),
        (["display_name", "*"], Endpoint(url=OTHER_URL, display_name="x"), ["update_mask"]),
        ([], Endpoint(display_name="x", max_in_flight=65), ["endpoint.max_in_flight"]),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await webhooks.UpdateEndpoint(masked(created.endpoint_id, *paths, values=values))
        assert violations_of(caught.value) == wrong
    assert await get(webhooks, created.endpoint_id) == created


async def test_an_update_without_a_mask_changes_the_fields_that_are_set(webhooks: WebhookServiceStub) -> None:
    created = await create(webhooks, FULL)
    values = Endpoint(display_name="new", labels={"team": "support"}, create_time=created.update_time)
    updated = (await webhooks.UpdateEndpoint(masked(created.endpoint_id, values=values))).endpoint
    expected = Endpoint()
    expected.CopyFrom(created)
    expected.display_name = "new"
    expected.labels.clear()
    expected.labels["team"] = "support"
    expected.update_time.CopyFrom(updated.update_time)
    assert updated == expected == await get(webhooks, created.endpoint_id)


async def test_an_update_without_a_mask_and_without_fields_changes_nothing(webhooks: WebhookServiceStub) -> None:
    created = await create(webhooks, FULL)
    assert (await webhooks.UpdateEndpoint(masked(created.endpoint_id))).endpoint == created


async def test_an_update_ignores_fields_that_its_mask_does_not_name(webhooks: WebhookServiceStub) -> None:
    created = await create(webhooks)
    read = await get(webhooks, created.endpoint_id)
    read.display_name = "new"
    read.url = OTHER_URL
    request = UpdateEndpointRequest(endpoint=read, update_mask=FieldMask(paths=["display_name"]))
    updated = (await webhooks.UpdateEndpoint(request)).endpoint
    assert (updated.display_name, updated.url) == ("new", URL)


async def test_a_disabled_endpoint_can_be_created(webhooks: WebhookServiceStub, house: House) -> None:
    created = await create(webhooks, Endpoint(url=URL, state=endpoint_pb2.ENDPOINT_STATE_DISABLED))
    assert created.state == endpoint_pb2.ENDPOINT_STATE_DISABLED
    assert created.disable_reason == endpoint_pb2.DISABLE_REASON_REQUESTED
    await house.notify()
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 10)
    assert await house.deliveries() == []
    enabled = await webhooks.EnableEndpoint(EnableEndpointRequest(endpoint_id=created.endpoint_id))
    assert enabled.endpoint.state == endpoint_pb2.ENDPOINT_STATE_ENABLED


async def test_an_update_of_the_state_disables_and_enables_like_the_calls(
    webhooks: WebhookServiceStub, failing: Endpoint, house: House
) -> None:
    endpoint_id = failing.endpoint_id
    await house.notify(3)
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 10)
    off = Endpoint(state=endpoint_pb2.ENDPOINT_STATE_DISABLED, display_name="off")
    disabled = (await webhooks.UpdateEndpoint(masked(endpoint_id, "state", "display_name", values=off))).endpoint
    assert (disabled.state, disabled.display_name) == (endpoint_pb2.ENDPOINT_STATE_DISABLED, "off")
    assert disabled.disable_reason == endpoint_pb2.DISABLE_REASON_REQUESTED
    assert [row.status for row in await house.deliveries()] == [DeliveryStatus.CANCELLED] * 3

    on = Endpoint(state=endpoint_pb2.ENDPOINT_STATE_ENABLED)
    enabled = (await webhooks.UpdateEndpoint(masked(endpoint_id, values=on))).endpoint
    assert (enabled.state, enabled.display_name) == (endpoint_pb2.ENDPOINT_STATE_ENABLED, "off")
    assert enabled.health == endpoint_pb2.EndpointHealth(breaker_state=endpoint_pb2.BREAKER_STATE_CLOSED)
    assert enabled == await get(webhooks, endpoint_id)


async def test_the_mask_of_a_star_leaves_an_unset_state_as_it_is(webhooks: WebhookServiceStub) -> None:
    created = await create(webhooks, Endpoint(url=URL, state=endpoint_pb2.ENDPOINT_STATE_DISABLED))
    answer = await webhooks.UpdateEndpoint(masked(created.endpoint_id, "*", values=Endpoint(url=OTHER_URL)))
    assert answer.endpoint.state == endpoint_pb2.ENDPOINT_STATE_DISABLED


async def test_labels_from_before_their_rules_are_kept_and_shown(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    created = await create(webhooks)
    async with database.transaction() as connection:
        await connection.execute(text("""UPDATE endpoint SET metadata = '{"Größe": "2 €"}', description = 'old'"""))
    answer = await webhooks.UpdateEndpoint(masked(created.endpoint_id, values=Endpoint(max_in_flight=2)))
    assert (dict(answer.endpoint.labels), answer.endpoint.display_name) == ({"Größe": "2 €"}, "old")


async def test_calls_for_an_unknown_endpoint_are_not_found(webhooks: WebhookServiceStub) -> None:
    for call in (
        webhooks.UpdateEndpoint(masked("whe_nothing", "display_name")),
        webhooks.EnableEndpoint(EnableEndpointRequest(endpoint_id="whe_nothing")),
        webhooks.DisableEndpoint(DisableEndpointRequest(endpoint_id="whe_nothing")),
        webhooks.RotateSecret(RotateSecretRequest(endpoint_id="whe_nothing")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason_of(caught.value) == "ERROR_REASON_ENDPOINT_NOT_FOUND"


async def test_delete_removes_the_secrets_and_credentials_of_an_endpoint(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    endpoint_id = (await create(webhooks, FULL)).endpoint_id
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=endpoint_id))
    assert await credentials_of(database, endpoint_id) is None
    async with database.transaction() as connection:
        assert await connection.scalar(select(endpoint.c.headers)) == {}
        assert (await connection.execute(select(endpoint_secret))).all() == []


@pytest.fixture
async def failing(webhooks: WebhookServiceStub, database: Database) -> Endpoint:
    """An endpoint with failures in its health, as a notifier records them."""
    endpoint_id = (await create(webhooks)).endpoint_id
    async with database.transaction() as connection:
        await connection.execute(
            update(endpoint).values(
                breaker_state="OPEN",
                breaker_until=text("now() + interval '1 minute'"),
                not_before=text("now() + interval '2 minutes'"),
                failing_since=text("now() - interval '1 day'"),
                failure_count=12,
                warned_percent=50,
                exhaustion_noted=True,
            )
        )
    return await get(webhooks, endpoint_id)


async def test_an_endpoint_shows_its_health(failing: Endpoint) -> None:
    health = failing.health
    assert (health.failure_count, health.breaker_state) == (12, endpoint_pb2.BREAKER_STATE_OPEN)
    assert health.resume_time.ToDatetime() - health.failing_since_time.ToDatetime() == timedelta(days=1, minutes=2)
    assert not health.HasField("last_success_time")


async def test_a_new_url_resets_the_health_of_an_endpoint(
    webhooks: WebhookServiceStub, failing: endpoint_pb2.Endpoint
) -> None:
    kept = await webhooks.UpdateEndpoint(masked(failing.endpoint_id, "display_name"))
    assert kept.endpoint.health == failing.health
    moved = await webhooks.UpdateEndpoint(masked(failing.endpoint_id, "url", values=Endpoint(url=OTHER_URL)))
    assert moved.endpoint.health == endpoint_pb2.EndpointHealth(breaker_state=endpoint_pb2.BREAKER_STATE_CLOSED)


async def test_disable_cancels_pending_deliveries_and_enable_resets_the_health(
    webhooks: WebhookServiceStub, failing: Endpoint, house: House
) -> None:
    endpoint_id = failing.endpoint_id
    await house.notify(3)
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 10)
    disabled = (await webhooks.DisableEndpoint(DisableEndpointRequest(endpoint_id=endpoint_id))).endpoint
    assert disabled.state == endpoint_pb2.ENDPOINT_STATE_DISABLED
    assert disabled.disable_reason == endpoint_pb2.DISABLE_REASON_REQUESTED
    assert [row.status for row in await house.deliveries()] == [DeliveryStatus.CANCELLED] * 3
    again = (await webhooks.DisableEndpoint(DisableEndpointRequest(endpoint_id=endpoint_id))).endpoint
    assert again == disabled

    await house.notify()
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 10)
    assert len(await house.deliveries()) == 3

    enabled = (await webhooks.EnableEndpoint(EnableEndpointRequest(endpoint_id=endpoint_id))).endpoint
    assert enabled.state == endpoint_pb2.ENDPOINT_STATE_ENABLED
    assert enabled.disable_reason == endpoint_pb2.DISABLE_REASON_NONE
    assert enabled.health == endpoint_pb2.EndpointHealth(breaker_state=endpoint_pb2.BREAKER_STATE_CLOSED)
    assert enabled == (await webhooks.EnableEndpoint(EnableEndpointRequest(endpoint_id=endpoint_id))).endpoint


async def test_endpoints_of_an_organization_are_limited(webhooks: WebhookServiceStub, house: House) -> None:
    first = await create(webhooks)
    async with house.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO endpoint (organization_id, endpoint_id, url, event_types, state, create_time)"
                " SELECT organization_id, 'whe_' || number, url, '{}', 'DISABLED', now()"
                " FROM endpoint CROSS JOIN generate_series(2, :most) AS number"
            ),
            {"most": MAX_ENDPOINTS},
        )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(webhooks)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "ERROR_REASON_TOO_MANY_ENDPOINTS"
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=first.endpoint_id))
    await create(webhooks)


async def test_a_request_without_an_endpoint_is_refused(webhooks: WebhookServiceStub) -> None:
    for call in (
        webhooks.CreateEndpoint(CreateEndpointRequest()),
        webhooks.UpdateEndpoint(UpdateEndpointRequest(update_mask=FieldMask(paths=["url"]))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert violations_of(caught.value) == ["endpoint"]
