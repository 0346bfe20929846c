"""A server behind the HTTP port that notes what it gets, and answers what the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from gateway.application import Settings
from gateway.cloudevents.mapping import default_mapping
from gateway.limits import DEFAULT_HTTP_LIMITS, HttpLimits
from gateway.listening import HttpFront, ServingHttp
from generated.tidemark.v1 import alert_service_pb2
from runtime.forwarding import Forwarding, forwarding
from tests.support.gateway.http import HttpClient

ALERTS = "/v1/alerts"  # a path that lists, and its answer without items
EMPTY = alert_service_pb2.ListAlertsResponse()
HEAD = b"Host: localhost\r\nConnection: close\r\n"  # of requests that are written by hand


@dataclass
class Echo:
    """method, request, metadata: of the last call. answers: what the next calls are answered with."""

    forwarding: Forwarding
    method: str = ""
    request: bytes = b""
    metadata: dict[str, Any] = field(default_factory=dict)
    remaining: float | None = None
    answers: Sequence[Message] = ()
    refused: status_pb2.Status | None = None  # by `admit`
    is_alive: bool = True
    holds: bool = False  # whether calls wait until they are cancelled
    held: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    tls: Any = None
    shares_port: bool = False

    def is_ready(self) -> bool:
        """Whether it is ready."""
        return self.is_alive

    async def admit(self, method: str, metadata: Any) -> status_pb2.Status | None:
        """The error of callers of large requests."""
        return self.refused

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of any method."""

        async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
            self.method, self.request = details.method, request
            self.metadata = dict(details.invocation_metadata)
            self.remaining = context.time_remaining()
            if self.holds:
                self.held.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            for one in self.answers:
                yield one.SerializeToString()

        return grpc.unary_stream_rpc_method_handler(answer)


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def service(self, handler_call_details: Any) -> Any:
        return self._echo.service(handler_call_details)


@asynccontextmanager
async def echoing(
    limits: HttpLimits = DEFAULT_HTTP_LIMITS, **settings: Any
) -> AsyncIterator[tuple[Echo, HttpClient]]:
    """A server that answers any method, and a client of the HTTP port in front of it."""
    async with echoing_front(limits, **settings) as (echo, _, client):
        yield echo, client


@asynccontextmanager
async def echoing_front(
    limits: HttpLimits = DEFAULT_HTTP_LIMITS, *, max_connections: int = 100, **settings: Any
) -> AsyncIterator[tuple[Echo, ServingHttp, HttpClient]]:
    """The same with the port itself."""
    with forwarding() as socket_of_front:
        echo = Echo(socket_of_front)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([_AnyMethod(echo)])
        server.add_insecure_port(socket_of_front.target)
        await server.start()
        stated: dict[str, Any] = {"max_body": 1_000_000, "allow_origins": (), "mapping": default_mapping()} | settings
        front = HttpFront("127.0.0.1", 0, Settings(**stated), max_connections=max_connections, limits=limits)
        try:
            async with front.serving(echo) as serving, aiohttp.ClientSession() as session:
                yield echo, serving, HttpClient(session, f"http://127.0.0.1:{serving.port}")
        finally:
            await server.stop(0)


async def raw(port: int, data: bytes, *, until_closed: bool = True) -> bytes:
    """What the port answers to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read() if until_closed else await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
