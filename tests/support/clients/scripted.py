"""A server of EvaluateUsage that follows a script of the test, and batches to send to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc

from tidemark_client.usage.batches import Batch
from tidemark_client.v1.alert_service_pb2 import EvaluateUsageRequest, EvaluateUsageResponse
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

SERVICE = "tidemark.v1.AlertService"

# The flow-control window keeps its first size, 64 KiB: a larger message waits until the handler reads it.
_OPTIONS = (("grpc.http2.bdp_probe", 0),)
LARGE = 1 << 20  # bytes

Requests = AsyncIterator[EvaluateUsageRequest]
Context = grpc.aio.ServicerContext[EvaluateUsageRequest, EvaluateUsageResponse]
Script = Callable[[Requests, Context], AsyncIterator[EvaluateUsageResponse]]


class Scripted:
    """A server whose n-th stream follows the n-th script; all further streams follow the last one."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.streams = 0
        self.received: list[list[str]] = []  # the ids of the batches of each stream
        self.received_alone: list[str] = []  # and of those that came in unary calls
        self.server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=EvaluateUsageRequest.FromString,
            response_serializer=EvaluateUsageResponse.SerializeToString,
        )
        twin = grpc.unary_unary_rpc_method_handler(
            self._serve_one,
            request_deserializer=EvaluateUsageRequest.FromString,  # the same fields under the same numbers
            response_serializer=EvaluateUsageResponse.SerializeToString,
        )
        handlers = {"EvaluateUsage": handler, "EvaluateUsageBatch": twin}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def _serve(self, requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        script = self._scripts[min(self.streams, len(self._scripts) - 1)]
        self.streams += 1
        received: list[str] = []
        self.received.append(received)

        async def read() -> Requests:
            async for request in requests:
                received.append(request.batch.batch_id)
                yield request

        async for response in script(read(), context):
            yield response

    async def _serve_one(self, request: EvaluateUsageRequest, context: Context) -> EvaluateUsageResponse:
        """A unary call follows the script of the stream before it."""
        self.received_alone.append(request.batch.batch_id)

        async def alone() -> Requests:
            yield request

        return await anext(self._scripts[min(self.streams, len(self._scripts)) - 1](alone(), context))

    async def __aenter__(self) -> "Scripted":
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(0)


def answer(request: EvaluateUsageRequest) -> EvaluateUsageResponse:
    batch = request.batch
    return EvaluateUsageResponse(outcome=UsageOutcome(batch_id=batch.batch_id, accepted=len(batch.events)))


async def answers_all(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
    async for request in requests:
        yield answer(request)


async def batches(count: int, size: int = 2) -> AsyncIterator[Batch]:
    for number in range(count):
        yield Batch(f"b{number}", [UsageEvent(event_id=f"e{number}-{index}") for index in range(size)])


def names(count: int) -> list[str]:
    return [f"b{number}" for number in range(count)]


async def large_batches(count: int, writing: asyncio.Event) -> AsyncIterator[Batch]:
    """Batches that are larger than the flow-control window. Sets `writing` when the second is being written."""
    for number in range(count):
        if number == 3:  # the third waits, so the writer has taken the second
            writing.set()
        yield Batch(f"b{number}", [UsageEvent(event_id=f"e{number}-" + "x" * LARGE)])


class Cable:
    """A proxy to a server whose connections can be cut; new connections are possible at once."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._ends: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Cable":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Aborts every connection."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends += (back, forth)
        await asyncio.gather(_carry(near, forth), _carry(far, back))


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()
