"""Idempotency: the answers to requests with a request id, stored so that a retry gets the same answer."""

import hashlib
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.accounts import request


class RequestIdReused(Exception):
    """The request id was used before for a request with other content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


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


async def delete_before(connection: AsyncConnection, time: datetime) -> int:
    """Deletes the answers to requests before `time`; returns how many."""
    result = await connection.execute(delete(request).where(request.c.create_time < time))
    return int(result.rowcount)


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()


def _lock_number(organization_id: int, method: str, request_id: str) -> int:
    name = f"{organization_id}\x1f{method}\x1f{request_id}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)
