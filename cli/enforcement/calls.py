"""Calls of LimitService for the command line."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from cli.client.connection import Address
from cli.connection.options import call_problem
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub

Answer = TypeVar("Answer")


def ask(address: Address, call: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Calls LimitService; call: gets its stub. Raises Problem."""

    async def run() -> Answer:
        async with address.channel() as channel:
            return await call(LimitServiceStub(channel))

    try:
        return asyncio.run(run())
    except grpc.aio.AioRpcError as error:
        raise call_problem(error, address) from None
