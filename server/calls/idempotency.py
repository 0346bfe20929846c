"""Requests that are safe to repeat: a request with a known request id gets the answer of the first one."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from runtime.clock import Clock
from server.calls.current_call import current_organization
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from store.identity import idempotent_answers
from store.postgres.database import Connection, Database

MAX_REQUEST_ID_LENGTH = 128  # characters

Answer = TypeVar("Answer", bound=Message)


def read_request_id(violations: Violations, request_id: str) -> str:
    """The request id of a request; empty where the caller gives none."""
    return violations.text("request_id", request_id, max_length=MAX_REQUEST_ID_LENGTH)


async def answer_once(
    database: Database,
    clock: Clock,
    method: str,
    request: Message,
    answer_type: type[Answer],
    work: Callable[[Connection], Awaitable[Answer]],
) -> Answer:
    """Runs `work` in a transaction and returns its answer; for a repeated request, returns the answer of the first.

    request: has the fields `request_id` and `validate_only`. An empty request_id makes every request the first. The
    answer is stored in the transaction of `work`, and gets `replayed` when it is returned again. With validate_only
    nothing is stored and nothing is changed. Raises RequestIdReused, and what `work` raises.
    """
    request_id: str = getattr(request, "request_id")  # noqa: B009 (Message does not declare it)
    validate_only: bool = getattr(request, "validate_only")  # noqa: B009
    async with transaction_of(database, validate_only) as connection:
        if not request_id:
            return await work(connection)
        key = (connection, current_organization().organization_id, method, request_id, _payload(request))
        first = await idempotent_answers.find_answer(*key)
        if first is not None:
            repeated = answer_type.FromString(first)
            setattr(repeated, "replayed", True)  # noqa: B010
            return repeated
        answer = await work(connection)
        if not validate_only:
            await idempotent_answers.store_answer(*key, answer.SerializeToString(), clock.now())
        return answer


def _payload(request: Message) -> bytes:
    """What has to be equal in requests with the same id."""
    compared = type(request)()
    compared.CopyFrom(request)
    compared.ClearField("validate_only")
    return compared.SerializeToString(deterministic=True)
