"""Secrets: rotated with and without a grace, shown once, sealed at rest, and never stored without a key."""

import base64
import logging
from datetime import timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import select, text, update

from generated.tidemark.v1 import (
    endpoint_pb2,
)
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    CreateEndpointResponse,
    GetEndpointRequest,
    RotateSecretRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from server.calls.errors import FailedPrecondition
from server.webhooks.endpoints import EndpointHandlers
from store.endpoints import credentials as endpoint_credentials
from store.endpoints import secrets as endpoint_secrets
from store.endpoints.rows import Settings
from store.postgres.database import Database
from store.tables.webhooks import endpoint, endpoint_secret
from tests.support.notifier.house import BOX, House
from tests.support.server.running import reason_of, violations_of
from webhooks.secret_box import SecretBox, credentials_context, secret_context
from webhooks.signing_keys import verification_key
from webhooks.url_policy import UrlPolicy

URL = "https://hooks.example.com/tidemark"
HMAC = endpoint_pb2.SIGNATURE_SCHEME_HMAC_SHA256
ED25519 = endpoint_pb2.SIGNATURE_SCHEME_ED25519
OWN_SECRET = "whsec_" + base64.b64encode(b"a secret of another sender, 0123").decode()


async def create(
    webhooks: WebhookServiceStub, scheme: endpoint_pb2.SignatureScheme.ValueType = HMAC
) -> CreateEndpointResponse:
    return await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=URL), signature_scheme=scheme))


async def stored(database: Database, box: SecretBox = BOX) -> dict[int, str]:
    """The secrets in the table, opened, by sequence; none of them in plain text."""
    async with database.transaction() as connection:
        rows = (await connection.execute(select(endpoint_secret))).all()
    opened = {}
    for row in rows:
        assert row.secret is None
        assert row.key_id == box.key_id
        place = secret_context(row.organization_id, row.endpoint_id, row.sequence)
        opened[row.sequence] = box.open(row.ciphertext, place).decode()
    return opened


async def test_a_secret_is_sealed_and_shown_once(webhooks: WebhookServiceStub, database: Database) -> None:
    created = await create(webhooks)
    assert await stored(database) == {1: created.secret}
    read = await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    assert created.secret not in str(read)


async def test_a_secret_of_the_callers_own_is_sealed_and_shown_once(
    webhooks: WebhookServiceStub, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    request = CreateEndpointRequest(endpoint=Endpoint(url=URL), secret=OWN_SECRET)
    with caplog.at_level(logging.DEBUG):
        created = await webhooks.CreateEndpoint(request)
        read = await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    assert created.secret == OWN_SECRET
    assert await stored(database) == {1: OWN_SECRET}
    hidden = OWN_SECRET.removeprefix("whsec_")
    assert hidden not in str(read) + str(created.endpoint)
    assert hidden not in caplog.text


async def test_a_refused_secret_is_not_repeated(
    webhooks: WebhookServiceStub, caplog: pytest.LogCaptureFixture
) -> None:
    short = "whsec_" + base64.b64encode(b"hush hush hush").decode()
    for request in (
        CreateEndpointRequest(endpoint=Endpoint(url=URL), secret=short),
        CreateEndpointRequest(endpoint=Endpoint(url=URL), secret=OWN_SECRET, signature_scheme=ED25519),
    ):
        with caplog.at_level(logging.DEBUG), pytest.raises(grpc.aio.AioRpcError) as caught:
            await webhooks.CreateEndpoint(request)
        assert violations_of(caught.value) == ["secret"]
        hidden = request.secret.removeprefix("whsec_")
        assert hidden not in str(caught.value)
        assert hidden not in caplog.text


async def test_an_ed25519_endpoint_shows_its_public_key(webhooks: WebhookServiceStub, database: Database) -> None:
    created = await create(webhooks, ED25519)
    assert created.secret.startswith("whpk_")
    [key] = created.endpoint.signing_keys
    assert (key.scheme, key.public_key) == (ED25519, created.secret)
    [secret] = (await stored(database)).values()
    assert verification_key(secret) == created.secret
    pair = base64.b64decode(secret.removeprefix("whsk_"))
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(created.secret.removeprefix("whpk_")))
    public.verify(Ed25519PrivateKey.from_private_bytes(pair[:32]).sign(b"it fits"), b"it fits")


async def test_a_rotation_keeps_the_old_secret_for_a_day(webhooks: WebhookServiceStub, database: Database) -> None:
    created = await create(webhooks)
    rotated = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=created.endpoint.endpoint_id))
    assert rotated.secret != created.secret
    assert await stored(database) == {1: created.secret, 2: rotated.secret}
    newest, older = rotated.endpoint.signing_keys
    assert (newest.sequence, newest.HasField("expire_time")) == (2, False)
    assert older.sequence == 1
    async with database.transaction() as connection:
        now = await connection.scalar(text("SELECT now()"))
    assert now is not None
    left = older.expire_time.ToDatetime(tzinfo=now.tzinfo) - now
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)


async def test_a_rotation_without_grace_ends_every_older_secret(
    webhooks: WebhookServiceStub, database: Database
) -> None:
    endpoint_id = (await create(webhooks)).endpoint.endpoint_id
    await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id, grace=Duration(seconds=600)))
    rotated = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id, grace=Duration()))
    assert [key.sequence for key in rotated.endpoint.signing_keys] == [3]
    assert await stored(database) == {3: rotated.secret}


async def test_another_rotation_does_not_extend_a_grace(webhooks: WebhookServiceStub) -> None:
    endpoint_id = (await create(webhooks)).endpoint.endpoint_id
    short = RotateSecretRequest(endpoint_id=endpoint_id, grace=Duration(seconds=600))
    first = (await webhooks.RotateSecret(short)).endpoint.signing_keys[1]
    long = RotateSecretRequest(endpoint_id=endpoint_id, grace=Duration(seconds=7 * 86_400))
    keys = (await webhooks.RotateSecret(long)).endpoint.signing_keys
    assert [key.sequence for key in keys] == [3, 2, 1]
    assert keys[2] == first


async def test_no_more_than_five_secrets_sign(webhooks: WebhookServiceStub, database: Database) -> None:
    endpoint_id = (await create(webhooks)).endpoint.endpoint_id
    for _ in range(4):
        await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "ERROR_REASON_TOO_MANY_SECRETS"
    assert sorted(await stored(database)) == [1, 2, 3, 4, 5]
    # One grace ends: there is room again, and what ended is not kept.
    async with database.transaction() as connection:
        await connection.execute(
            update(endpoint_secret).where(endpoint_secret.c.sequence == 2).values(not_after=text("now()"))
        )
    rotated = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id))
    assert [key.sequence for key in rotated.endpoint.signing_keys] == [6, 5, 4, 3, 1]
    assert sorted(await stored(database)) == [1, 3, 4, 5, 6]


async def test_a_rotation_changes_the_scheme_only_when_requested(webhooks: WebhookServiceStub) -> None:
    endpoint_id = (await create(webhooks)).endpoint.endpoint_id
    first = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id, signature_scheme=ED25519))
    assert [key.scheme for key in first.endpoint.signing_keys] == [ED25519, HMAC]
    second = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id))
    assert second.secret.startswith("whpk_")
    assert [key.scheme for key in second.endpoint.signing_keys] == [ED25519, ED25519, HMAC]


async def test_reencryption_replaces_the_master_key(house: House) -> None:
    new_box = SecretBox([("new", b"n" * 32), ("test", b"tidemark tests and nothing else!")])
    settings = Settings(url=URL, credentials="Bearer hush")
    created = [await house.endpoint(URL, settings=settings) for _ in range(3)]
    plain = await house.endpoint(URL)
    async with house.database.transaction() as connection:
        # As a row from before there was encryption.
        await connection.execute(
            update(endpoint_secret)
            .where(endpoint_secret.c.endpoint_id == plain.endpoint.endpoint_id)
            .values(secret=plain.secret, ciphertext=None, key_id=None)
        )
    sealed, after = 0, (0, "", 0)
    while True:
        async with house.database.transaction() as connection:
            number, last = await endpoint_secrets.reencrypt(connection, new_box, after, 2)
        sealed += number.total()
        if last is None:
            break
        after = last
    assert sealed == 4
    async with house.database.transaction() as connection:
        number, last_endpoint = await endpoint_credentials.reencrypt_credentials(connection, new_box, (0, ""), 10)
        assert number.total() == 3
        assert last_endpoint == max((row.endpoint.organization_id, row.endpoint.endpoint_id) for row in created)
        number, last_endpoint = await endpoint_credentials.reencrypt_credentials(connection, new_box, (0, ""), 10)
        assert (number.total(), last_endpoint) == (0, None)
        rows = (await connection.execute(select(endpoint).where(endpoint.c.credentials.is_not(None)))).all()
        secrets = (await connection.execute(select(endpoint_secret))).all()
    only_new = SecretBox([("new", b"n" * 32)])
    for row in rows:
        assert row.credentials_key_id == "new"
        assert (
            only_new.open(row.credentials, credentials_context(row.organization_id, row.endpoint_id))
            == b"Bearer hush"
        )
    opened = {
        row.endpoint_id: only_new.open(
            row.ciphertext, secret_context(row.organization_id, row.endpoint_id, row.sequence)
        ).decode()
        for row in secrets
    }
    assert opened == {row.endpoint.endpoint_id: row.secret for row in [*created, plain]}


async def test_no_secret_is_stored_without_a_master_key(database: Database, house: House) -> None:
    handlers = EndpointHandlers(database, house.clock, UrlPolicy(False, ()), None)
    with pytest.raises(FailedPrecondition, match="TIDEMARK_SECRET_KEYS"):
        await handlers.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=URL)), None)  # type: ignore[arg-type]  # not used
