"""Calls of LimitService for the command line."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from cli.client.connection import Address
from cli.client.errors import error_reason
from cli.connection.options import call_problem
from cli.console import Problem
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub

Answer = TypeVar("Answer")

# What to do about an error, by its reason.
_HINTS = {
    "ERROR_REASON_RESERVATION_NOT_FOUND": "list those of the customer: tidemark reservations list CUSTOMER",
    "ERROR_REASON_RESERVATION_ENDED": "it holds nothing any more: see tidemark reservations get CUSTOMER RESERVATION",
    "ERROR_REASON_ROLE_MISSING": "check and list need a key with the role READER, release one with INGESTER",
}


def ask(address: Address, call: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Calls LimitService; call: gets its stub. Raises Problem."""

    async def run() -> Answer:
        async with address.channel() as channel:
            return await call(LimitServiceStub(channel))

    try:
        return asyncio.run(run())
    except grpc.aio.AioRpcError as error:
        raise _problem(error, address) from None


def _problem(error: grpc.aio.AioRpcError, address: Address) -> Problem:
    hint = _HINTS.get(error_reason(error))
    if hint is not None:
        return Problem(error.details() or error.code().name, [hint])
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return Problem(f"the server at {address.server} has no LimitService", ["upgrade it to this version"])
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return Problem(error.details() or "the request is not valid")
    return call_problem(error, address)
