"""A server of this test's own, in this process, behind a real gRPC channel.

It is not the stack of `processes/programs.py`: tests give it their clock, their services and their database pool.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.limits import DEFAULT_LIMITS, EngineLimits
from runtime.clock import Clock
from runtime.configuration import Configuration
from server.calls.errors import DETAILS_KEY
from server.calls.lifecycle import Shutdown
from server.front import Front
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from server.parts import Parts
from server.process import serve
from server.services import register
from store.postgres.database import Database
from tests.support.server.observer import Observer

AddServices = Callable[[grpc.aio.Server, Parts], tuple[str, ...]]

UNARY_DEADLINE = 60.0  # seconds; more than the default, for machines that are busy with other tests
SECRET_KEYS = (("test", b"tidemark tests and nothing else!"),)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Running:
    """A server that listens, a channel to it, and the switch that stops it."""

    port: int
    channel: grpc.aio.Channel
    shutdown: Shutdown
    stopped: asyncio.Task[None]
    observer: Observer = field(default_factory=Observer)

    @property
    def health(self) -> Any:
        """A stub of the health service, which has no types."""
        return health_pb2_grpc.HealthStub(self.channel)

    async def health_of(self, service: str = "") -> int:
        """The status of a service."""
        answer: health_pb2.HealthCheckResponse = await self.health.Check(
            health_pb2.HealthCheckRequest(service=service)
        )
        return answer.status


@asynccontextmanager
async def running(
    database: Database,
    clock: Clock,
    add_services: AddServices = register,
    configuration: Configuration | None = None,
    *,
    engine_limits: EngineLimits = DEFAULT_LIMITS,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    secret_keys: tuple[tuple[str, bytes], ...] = SECRET_KEYS,
    monitoring_socket: socket.socket | None = None,
    front: Front | None = None,
) -> AsyncIterator[Running]:
    """Serves on a free port of loopback until the block ends; stops without delays."""
    shutdown = Shutdown()
    listening: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    stopped = asyncio.create_task(
        serve(
            replace(
                configuration or Configuration(listen_port=0, propagation_delay=0.0, unary_deadline=UNARY_DEADLINE),
                # A master key: without one a server creates a file for it.
                secret_keys=secret_keys,
            ),
            database,
            clock,
            shutdown,
            lambda host, port: listening.set_result(port),
            add_services,
            engine_limits=engine_limits,
            server_limits=server_limits,
            monitoring_socket=monitoring_socket,
            front=front,
        )
    )
    await asyncio.wait([stopped, listening], return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        await stopped
    port: int = listening.result()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = Running(port, channel, shutdown, stopped)
        try:
            yield server
        finally:
            await server.observer.close()
        shutdown.request()
        shutdown.request()
        await stopped


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status that came with an error; agrees with its code and text."""
    for key, value in error.trailing_metadata():
        if key == DETAILS_KEY:
            assert isinstance(value, bytes)
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            return status
    raise AssertionError(f"{error.code()} {error.details()!r} came without a google.rpc.Status")


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the ErrorInfo of an error."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_of(error).details)
    assert info.domain == "tidemark.dev"
    return info.reason


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The metadata in the ErrorInfo of an error."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_of(error).details)
    return dict(info.metadata)


def violations_of(error: grpc.aio.AioRpcError) -> list[str]:
    """The paths in the BadRequest of an error."""
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status_of(error).details)
    return [violation.field for violation in bad.field_violations]
