"""Requests that make a secret and are repeated: one effect, the same answer, and no secret stored with it."""

import asyncio
import base64
import hashlib
from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import func, select, text, update

from generated.tidemark.v1 import endpoint_pb2
from generated.tidemark.v1.endpoint_pb2 import BearerCredentials, Endpoint, EndpointCredentials
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    DeleteEndpointRequest,
    GetEndpointRequest,
    ListEndpointsRequest,
    RotateSecretRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from store.endpoints.endpoints import MAX_ENDPOINTS
from store.identity import keys
from store.postgres.database import Database
from store.tables.accounts import request as stored_request
from store.tables.webhooks import endpoint_secret
from tests.support.server.running import SECRET_KEYS, reason_of, running

URL = "https://hooks.example.com/tidemark"
OWN_SECRET = "whsec_" + base64.b64encode(b"a secret of another sender, 0123").decode()
ED25519 = endpoint_pb2.SIGNATURE_SCHEME_ED25519


def new(request_id: str = "r-1", *, token: str = "", secret: str = "", url: str = URL) -> CreateEndpointRequest:
    sent = Endpoint(url=url)
    if token:
        sent.credentials.CopyFrom(EndpointCredentials(bearer=BearerCredentials(token=token)))
    return CreateEndpointRequest(endpoint=sent, secret=secret, request_id=request_id)


async def listed(webhooks: WebhookServiceStub) -> Sequence[Endpoint]:
    return (await webhooks.ListEndpoints(ListEndpointsRequest(page_size=1000))).endpoints


async def test_a_repeated_creation_makes_one_endpoint_and_returns_the_same_secret(
    webhooks: WebhookServiceStub,
) -> None:
    first = await webhooks.CreateEndpoint(new())
    again = await webhooks.CreateEndpoint(new())
    assert (first.replayed, again.replayed) == (False, True)
    assert first.secret.startswith("whsec_")
    assert (again.endpoint, again.secret) == (first.endpoint, first.secret)
    assert list(await listed(webhooks)) == [first.endpoint]
    other = await webhooks.CreateEndpoint(new("r-2"))
    assert other.endpoint.endpoint_id != first.endpoint.endpoint_id
    assert other.secret != first.secret


async def test_creations_without_a_request_id_make_an_endpoint_each(webhooks: WebhookServiceStub) -> None:
    first, second = [await webhooks.CreateEndpoint(new("")) for _ in range(2)]
    assert first.endpoint.endpoint_id != second.endpoint.endpoint_id
    assert not second.replayed


async def test_a_repeated_creation_returns_the_same_secret_after_a_restart(
    database: Database, clock: ManualClock
) -> None:
    answers = []
    for request in (new(secret=OWN_SECRET, token="hush"), new(secret=OWN_SECRET, token="hush")):
        async with running(database, clock) as server:
            answers.append(await WebhookServiceStub(server.channel).CreateEndpoint(request))
    assert [answer.secret for answer in answers] == [OWN_SECRET] * 2
    assert answers[0].endpoint == answers[1].endpoint
    assert answers[1].replayed


async def test_a_repeated_creation_returns_the_same_public_key(webhooks: WebhookServiceStub) -> None:
    request = CreateEndpointRequest(endpoint=Endpoint(url=URL), signature_scheme=ED25519, request_id="r-1")
    first = await webhooks.CreateEndpoint(request)
    again = await webhooks.CreateEndpoint(request)
    assert first.secret.startswith("whpk_")
    assert (again.endpoint, again.secret) == (first.endpoint, first.secret)


async def test_no_secret_is_stored_with_the_answer(webhooks: WebhookServiceStub, database: Database) -> None:
    made = await webhooks.CreateEndpoint(new("r-1"))
    request = new("r-2", token="hush-hush", secret=OWN_SECRET)
    await webhooks.CreateEndpoint(request)
    rotation = RotateSecretRequest(endpoint_id=made.endpoint.endpoint_id, request_id="r-3")
    rotated = await webhooks.RotateSecret(rotation)
    async with database.transaction() as connection:
        rows = (await connection.execute(select(stored_request))).all()
    assert len(rows) == 3
    for row in rows:
        for secret in (made.secret, rotated.secret, OWN_SECRET, "hush-hush"):
            assert secret.removeprefix("whsec_").encode() not in row.response
            assert base64.b64encode(secret.encode())[:8] not in row.response
    # A digest of the request in clear would let a short password be guessed.
    plain = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    assert plain not in [row.payload_digest for row in rows]


@pytest.mark.parametrize(
    "other",
    [
        new(url="https://hooks.example.org/", token="hush", secret=OWN_SECRET),
        new(token="hush2", secret=OWN_SECRET),
        new(secret=OWN_SECRET),
        new(token="hush"),
        new(token="hush", secret="whsec_" + base64.b64encode(bytes(32)).decode()),
    ],
)
async def test_a_request_id_with_other_content_is_refused(
    webhooks: WebhookServiceStub, other: CreateEndpointRequest
) -> None:
    await webhooks.CreateEndpoint(new(token="hush", secret=OWN_SECRET))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.CreateEndpoint(other)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(caught.value) == "ERROR_REASON_REQUEST_ID_REUSED"
    assert len(await listed(webhooks)) == 1


async def test_a_repeated_creation_is_recognized_after_the_master_key_is_rotated(
    database: Database, clock: ManualClock
) -> None:
    async with running(database, clock) as server:
        first = await WebhookServiceStub(server.channel).CreateEndpoint(new(token="hush"))
    async with running(database, clock, secret_keys=(("new", bytes(32)), *SECRET_KEYS)) as server:
        webhooks = WebhookServiceStub(server.channel)
        again = await webhooks.CreateEndpoint(new(token="hush"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await webhooks.CreateEndpoint(new(token="hush2"))
    assert again.replayed
    assert (again.endpoint, again.secret) == (first.endpoint, first.secret)
    assert reason_of(caught.value) == "ERROR_REASON_REQUEST_ID_REUSED"


async def test_organizations_have_request_ids_of_their_own(database: Database, clock: ManualClock) -> None:
    answers = []
    async with database.transaction() as connection:
        callers = [await keys.create_key(connection, name, clock.now()) for name in ("ours", "theirs")]
    async with running(database, clock) as server:
        webhooks = WebhookServiceStub(server.channel)
        for caller in callers * 2:
            metadata = (("authorization", f"Bearer {caller.key}"),)
            answers.append(await webhooks.CreateEndpoint(new(token="hush"), metadata=metadata))
    ours, theirs, ours_again, theirs_again = answers
    assert ours.endpoint.endpoint_id != theirs.endpoint.endpoint_id
    assert ours.secret != theirs.secret
    assert (ours_again.endpoint, ours_again.secret) == (ours.endpoint, ours.secret)
    assert (theirs_again.endpoint, theirs_again.secret) == (theirs.endpoint, theirs.secret)


async def fill(database: Database, number: int) -> None:
    """Adds that many endpoints beside the first one."""
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO endpoint (organization_id, endpoint_id, url, event_types, state, create_time)"
                " SELECT organization_id, 'whe_' || number, url, '{}', 'DISABLED', now()"
                " FROM endpoint CROSS JOIN generate_series(1, :number) AS number"
            ),
            {"number": number},
        )


async def test_concurrent_repetitions_of_the_last_possible_creation_make_one_endpoint(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    await webhooks.CreateEndpoint(new(""))
    await fill(database, MAX_ENDPOINTS - 2)
    answers = await asyncio.gather(*(webhooks.CreateEndpoint(new(token="hush")) for _ in range(12)))
    assert len({answer.secret for answer in answers}) == 1
    assert len({answer.endpoint.endpoint_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert len(await listed(webhooks)) == MAX_ENDPOINTS
    # A repetition needs no room for another endpoint.
    assert (await webhooks.CreateEndpoint(new(token="hush"))).secret == answers[0].secret


async def test_concurrent_repetitions_of_a_creation_beyond_the_limit_are_all_refused(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    await webhooks.CreateEndpoint(new(""))
    await fill(database, MAX_ENDPOINTS - 1)
    results = await asyncio.gather(*(webhooks.CreateEndpoint(new()) for _ in range(12)), return_exceptions=True)
    for result in results:
        assert isinstance(result, grpc.aio.AioRpcError)
        assert reason_of(result) == "ERROR_REASON_TOO_MANY_ENDPOINTS"
    assert len(await listed(webhooks)) == MAX_ENDPOINTS
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id="whe_1"))
    assert not (await webhooks.CreateEndpoint(new())).replayed


async def test_a_repeated_rotation_rotates_once_and_returns_the_same_secret(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    created = await webhooks.CreateEndpoint(new())
    rotation = RotateSecretRequest(endpoint_id=created.endpoint.endpoint_id, request_id="r-1")
    answers = await asyncio.gather(*(webhooks.RotateSecret(rotation) for _ in range(8)))
    assert len({answer.secret for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert [key.sequence for key in answers[0].endpoint.signing_keys] == [2, 1]
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(endpoint_secret)) == 2
    other = RotateSecretRequest(endpoint_id=created.endpoint.endpoint_id, grace=Duration(seconds=1), request_id="r-1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.RotateSecret(other)
    assert reason_of(caught.value) == "ERROR_REASON_REQUEST_ID_REUSED"


async def test_a_replay_shows_a_secret_in_its_grace_and_no_secret_afterwards(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    created = await webhooks.CreateEndpoint(new())
    endpoint_id = created.endpoint.endpoint_id
    await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id))
    assert (await webhooks.CreateEndpoint(new())).secret == created.secret
    async with database.transaction() as connection:
        await connection.execute(
            update(endpoint_secret).where(endpoint_secret.c.sequence == 1).values(not_after=func.now())
        )
    ended = await webhooks.CreateEndpoint(new())
    assert (ended.endpoint, ended.secret, ended.replayed) == (created.endpoint, "", True)
    await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id, grace=Duration()))
    assert (await webhooks.CreateEndpoint(new())).secret == ""


async def test_a_replay_shows_no_secret_of_a_deleted_endpoint(webhooks: WebhookServiceStub) -> None:
    created = await webhooks.CreateEndpoint(new())
    rotation = RotateSecretRequest(endpoint_id=created.endpoint.endpoint_id, request_id="r-1")
    rotated = await webhooks.RotateSecret(rotation)
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    again = await webhooks.CreateEndpoint(new())
    assert (again.endpoint, again.secret, again.replayed) == (created.endpoint, "", True)
    again_rotated = await webhooks.RotateSecret(rotation)
    assert (again_rotated.endpoint, again_rotated.secret) == (rotated.endpoint, "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    assert reason_of(caught.value) == "ERROR_REASON_ENDPOINT_NOT_FOUND"
    assert list(await listed(webhooks)) == []
