"""Reflection, so that grpcurl and buf curl need no .proto files: versions v1 and v1alpha."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from generated.tidemark.v1 import error_reason_pb2
from server.calls import errors
from server.calls.places import Places
from server.interceptors.around import Context

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
IDLE = 30.0  # seconds that a stream may take for its next request
_V1_FILE = "grpc/reflection/v1/reflection.proto"


class Reflection:
    """The servicer of grpcio-reflection, with bounds for callers that have no key."""

    def __init__(self, services: Iterable[str], places: Places) -> None:
        """`places` are those of requests on their way."""
        self._servicer: Any = reflection.aio.ReflectionServicer(services)  # its stubs are wrong about its stream
        self._places = places

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Answers each request, which is at most INFRASTRUCTURE_MESSAGE_BYTES long: every answer repeats it."""
        connection = context.peer()
        while (request := await self._next(requests, connection)) is not None:
            async for answer in self._servicer.ServerReflectionInfo(_only(request), context):
                yield answer

    async def _next(self, requests: AsyncIterator[Any], connection: str) -> Any:
        try:
            async with asyncio.timeout(IDLE):
                with self._places.waiting(connection):
                    return await anext(requests, None)
        except TimeoutError:
            raise errors.DeadlineExceeded(
                error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
                f"no request came for {IDLE:g} seconds: open the stream again when there is one",
            ) from None


def add_reflection(server: grpc.aio.Server, services: Iterable[str], places: Places) -> None:
    """Serves reflection for `services` and for itself; requests on their way are in `places`."""
    _describe_v1()
    servicer = Reflection((*services, V1, V1ALPHA), places)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    # grpcio-reflection knows v1alpha only. The two versions differ in their package name and nothing else, so
    # the same handler serves both.
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in (V1, V1ALPHA)]
    )


async def _only(request: Any) -> AsyncIterator[Any]:
    yield request


def _describe_v1() -> None:
    """Adds v1's own descriptor, which clients ask for because the list of services names it."""
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
