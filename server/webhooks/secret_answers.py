"""Requests that make a secret: safe to repeat, and no secret is stored with their answers."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from generated.tidemark.v1 import endpoint_pb2
from generated.tidemark.v1 import webhook_service_pb2 as messages
from runtime.clock import Clock
from server.calls.current_call import current_organization
from server.calls.idempotency import answer_once
from store.endpoints.secrets import verification_key_of
from store.identity.idempotent_answers import RequestIdReused
from store.postgres.database import Connection, Database
from webhooks.secret_box import SecretBox

Answer = TypeVar("Answer", messages.CreateEndpointResponse, messages.RotateSecretResponse)
Request = messages.CreateEndpointRequest | messages.RotateSecretRequest


async def answer_with_secret(
    database: Database,
    clock: Clock,
    box: SecretBox,
    request: Request,
    answer_type: type[Answer],
    work: Callable[[Connection], Awaitable[tuple[Answer, str]]],
) -> Answer:
    """Like `answer_once`, for work that returns its answer and beside it the secret.

    The answer is stored without its secret. A repeated request reads the secret from the endpoint's key, for as long
    as the key signs. With validate_only the answer has no secret.
    """
    made: list[str] = []

    async def keep(connection: Connection) -> Answer:
        answer, secret = await work(connection)
        made.append(secret)
        return answer

    method = answer_type.DESCRIPTOR.name.removesuffix("Response")
    answer = await _answer_once(database, clock, method, _compared(request, box), answer_type, keep)
    if request.validate_only:
        return answer
    answer.secret = made[0] if made else await _secret_again(database, answer.endpoint, box)
    return answer


async def _answer_once(
    database: Database,
    clock: Clock,
    method: str,
    forms: Sequence[Request],
    answer_type: type[Answer],
    work: Callable[[Connection], Awaitable[Answer]],
) -> Answer:
    """The answer to a request that may have been stored in any of its forms; new ones are stored in the first."""
    for form in forms[:-1]:
        try:
            return await answer_once(database, clock, method, form, answer_type, work)
        except RequestIdReused:
            continue
    return await answer_once(database, clock, method, forms[-1], answer_type, work)


def _compared(request: Request, box: SecretBox) -> list[Request]:
    """What is compared with the first request: a fingerprint under a master key stands for credentials and secret.

    The digest of a request is stored. From a plain digest, a short password could be guessed. There is one form for
    each master key, because the first request may be from before the keys were rotated.
    """
    if not isinstance(request, messages.CreateEndpointRequest):
        return [request]
    private = messages.CreateEndpointRequest(secret=request.secret)
    if request.endpoint.HasField("credentials"):
        private.endpoint.credentials.CopyFrom(request.endpoint.credentials)
    if not private.ListFields():
        return [request]
    forms: list[Request] = []
    for fingerprint in box.fingerprints(private.SerializeToString(deterministic=True)):
        form = messages.CreateEndpointRequest()
        form.CopyFrom(request)
        form.endpoint.ClearField("credentials")
        form.secret = fingerprint.hex()
        forms.append(form)
    return forms


async def _secret_again(database: Database, endpoint: endpoint_pb2.Endpoint, box: SecretBox) -> str:
    """The secret of a stored answer, which shows the key that it made first; empty when the key signs no more."""
    sequence = endpoint.signing_keys[0].sequence
    async with database.transaction() as connection:
        found = await verification_key_of(
            connection, current_organization().organization_id, endpoint.endpoint_id, sequence, box
        )
    return found or ""
