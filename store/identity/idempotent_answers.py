"""Idempotency: the answers to requests with a request id, stored so that a retry gets the same answer."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.database import driver
from store.tables.accounts import request


class RequestIdReused(Exception):
    """The request id was used before for a request with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


class AnsweredBefore(Exception):
    """Another try of a request has stored its answer, after this one had looked for it."""


async def find_answer(
    connection: AsyncConnection, organization_id: int, method: str, request_id: str, payload: bytes
) -> bytes | None:
    """The stored answer to the request with this id; None for the first request.

    payload: the request, serialized so that equal requests are equal bytes. Until the transaction ends, other
    requests with the id wait here. Raises RequestIdReused if the first request had another payload.
    """
    # Without the lock, two tries at the same time would both find no answer, and both create.
    await connection.execute(select(func.pg_advisory_xact_lock(_lock_number(organization_id, method, request_id))))
    row = (
        await connection.execute(
            select(request.c.payload_digest, request.c.response).where(
                request.c.organization_id == organization_id,
                request.c.method == method,
                request.c.request_id == request_id,
            )
        )
    ).one_or_none()
    if row is None:
        return None
    if row.payload_digest != _digest(payload):
        raise RequestIdReused(request_id)
    return bytes(row.response)


async def store_answer(
    connection: AsyncConnection,
    organization_id: int,
    method: str,
    request_id: str,
    payload: bytes,
    response: bytes,
    now: datetime,
) -> None:
    """Stores the answer. The transaction must have called `find_answer` first, and do what was requested."""
    await connection.execute(
        insert(request).values(
            organization_id=organization_id,
            method=method,
            request_id=request_id,
            payload_digest=_digest(payload),
            response=response,
            create_time=now,
        )
    )


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """A request with an id. digest: of its payload."""

    method: str
    request_id: str
    digest: bytes


def key_of(method: str, request_id: str, payload: bytes) -> AnswerKey:
    """The key of a request. payload: see `find_answer`."""
    return AnswerKey(method, request_id, _digest(payload))


async def known_answers(
    connection: AsyncConnection, organization_id: int, keys: Collection[AnswerKey]
) -> dict[AnswerKey, bytes | RequestIdReused]:
    """The stored answers to requests, by key; a refusal where the first request had another payload.

    Requests that are not in it are the first, if the transaction holds the organization's lock exclusively, and so
    does each transaction that stores answers of these methods.
    """
    if not keys:
        return {}
    cursor = await (await driver(connection)).execute(
        _KNOWN,
        {
            "organization_id": organization_id,
            "methods": [key.method for key in keys],
            "request_ids": [key.request_id for key in keys],
        },
    )
    stored = {(row[0], row[1]): (row[2], row[3]) for row in await cursor.fetchall()}
    found = dict[AnswerKey, bytes | RequestIdReused]()
    for key in keys:
        if (answer := stored.get((key.method, key.request_id))) is not None:
            found[key] = bytes(answer[1]) if answer[0] == key.digest else RequestIdReused(key.request_id)
    return found


_KNOWN = """
SELECT r.method, r.request_id, r.payload_digest, r.response
FROM unnest(%(methods)s::text[], %(request_ids)s::text[]) AS asked (method, request_id)
JOIN request r ON r.organization_id = %(organization_id)s AND r.method = asked.method COLLATE "C"
    AND r.request_id = asked.request_id COLLATE "C"
"""


async def store_answers(
    connection: AsyncConnection, organization_id: int, answers: Mapping[AnswerKey, bytes], now: datetime
) -> None:
    """Stores answers, in the transaction that does what was requested, after `known_answers` had none of them.

    Raises AnsweredBefore if one of them is known meanwhile: roll back, and read it.
    """
    if answers:
        cursor = await (await driver(connection)).execute(
            _STORE,
            {
                "organization_id": organization_id,
                "methods": [key.method for key in answers],
                "request_ids": [key.request_id for key in answers],
                "digests": [key.digest for key in answers],
                "responses": list(answers.values()),
                "now": now,
            },
        )
        # Not the number of affected rows: on distributed tables it is the number of selected ones.
        if len(await cursor.fetchall()) < len(answers):
            raise AnsweredBefore


_STORE = """
INSERT INTO request (organization_id, method, request_id, payload_digest, response, create_time)
SELECT %(organization_id)s, method, request_id, digest, response, %(now)s
FROM unnest(%(methods)s::text[], %(request_ids)s::text[], %(digests)s::bytea[], %(responses)s::bytea[])
    AS i (method, request_id, digest, response)
ON CONFLICT DO NOTHING
RETURNING 1
"""


async def delete_before(connection: AsyncConnection, time: datetime) -> int:
    """Deletes the answers to requests before `time`; returns how many."""
    result = await connection.execute(delete(request).where(request.c.create_time < time))
    return int(result.rowcount)


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()


def _lock_number(organization_id: int, method: str, request_id: str) -> int:
    name = f"{organization_id}\x1f{method}\x1f{request_id}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)
