"""Reflection v1 and v1alpha, so that grpcurl and buf curl need no .proto files."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from generated.tidemark.v1 import error_reason_pb2
from server.calls import errors
from server.calls.bounded_waits import BoundedWaits
from server.calls.context import Context

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
IDLE = 30.0  # seconds until the next request of a stream must arrive
_V1_FILE = "grpc/reflection/v1/reflection.proto"


class Reflection:
    """The servicer of grpcio-reflection, with limits, because its callers need no key."""

    def __init__(self, services: Iterable[str], waits: BoundedWaits) -> None:
        """waits: limits the requests that arrive at the same time."""
        self._servicer: Any = reflection.aio.ReflectionServicer(services)  # its stubs give its stream a wrong type
        self._waits = waits

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Answers each request. A request is short (INFRASTRUCTURE_MESSAGE_BYTES), because its answer repeats it."""
        connection = context.peer()
        while (request := await self._next(requests, connection)) is not None:
            async for answer in self._servicer.ServerReflectionInfo(_only(request), context):
                yield answer

    async def _next(self, requests: AsyncIterator[Any], connection: str) -> Any:
        try:
            async with asyncio.timeout(IDLE):
                with self._waits.waiting(connection):
                    return await anext(requests, None)
        except TimeoutError:
            raise errors.DeadlineExceeded(
                error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
                f"no request arrived for {IDLE:g} seconds: open the stream again for the next one",
            ) from None


def add_reflection(server: grpc.aio.Server, services: Iterable[str], waits: BoundedWaits) -> None:
    """Serves reflection for `services` and for itself. waits: limits the requests that arrive at the same time."""
    _describe_v1()
    servicer = Reflection((*services, V1, V1ALPHA), waits)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    # grpcio-reflection has only v1alpha. The versions differ only in their package name, so one handler serves both.
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in (V1, V1ALPHA)]
    )


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request


def _describe_v1() -> None:
    """Adds the descriptor of v1: clients request it, because the list of services contains v1."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_V1_FILE)
    except KeyError:
        v1alpha = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
        renamed = text_format.MessageToString(v1alpha).replace("reflection.v1alpha", "reflection.v1")
        file = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
        file.name = _V1_FILE
        pool.Add(file)
