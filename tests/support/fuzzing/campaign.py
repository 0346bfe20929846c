"""A campaign: several clients send bad requests and bad bytes to a server, while a canary makes good calls."""

import asyncio
import contextlib
import random
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from generated.tidemark.v1 import alert_service_pb2, alert_service_pb2_grpc, usage_pb2
from proto.documents.contract import METHODS, SERVICES
from proto.documents.examples import session
from tests.support.contract.calls import Metadata, answers_of
from tests.support.contract.definitions import CONDITIONS, new_alert
from tests.support.contract.names import Names
from tests.support.fuzzing.findings import Findings
from tests.support.fuzzing.messages import Good, bad_encoding
from tests.support.fuzzing.wire import bad_bytes, bad_tls, send_bytes
from tests.support.usage.alerts import usage_alert

CLIENTS = 8  # of a short campaign
LIMIT = 30.0  # seconds of one bad call
CANARY_INTERVAL = 0.05  # seconds
CANARY_LIMIT = 60.0  # seconds of one call of the canary

_PATHS = [f"/{method.containing_service.full_name}/{method.name}" for method in METHODS]
_INFRASTRUCTURE = ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")


@dataclass(slots=True)
class Canary:
    """Good calls of another organization, on a connection of their own."""

    seconds: list[float] = field(default_factory=list)

    def p99(self) -> float:
        """The 99th percentile of the calls so far, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[int(len(ordered) * 0.99)] if ordered else 0.0


@asynccontextmanager
async def canary(address: str, key: str, findings: Findings) -> AsyncIterator[Canary]:
    """Makes good calls inside the block; each that fails is a finding."""
    found = Canary()
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        alerts = alert_service_pb2_grpc.AlertServiceStub(channel)
        created = await alerts.CreateAlert(
            alert_service_pb2.CreateAlertRequest(alert=usage_alert("1000000000")), metadata=metadata
        )
        get = alert_service_pb2.GetAlertRequest(alert_id=created.alert.alert_id)

        async def sing() -> None:
            number = 0
            while True:
                number += 1
                event_time = Timestamp()
                event_time.GetCurrentTime()
                event = usage_pb2.UsageEvent(
                    event_id=f"canary-{number}-{id(found)}", customer_id="bird", metric_id="calls", quantity="1"
                )
                event.event_time.CopyFrom(event_time)
                send = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[event]))
                began = asyncio.get_running_loop().time()
                try:
                    await alerts.GetAlert(get, metadata=metadata, timeout=CANARY_LIMIT)
                    answer = await alerts.EvaluateUsageBatch(send, metadata=metadata, timeout=CANARY_LIMIT)
                    assert answer.outcome.accepted == 1, answer
                except grpc.aio.AioRpcError as error:
                    findings.add(f"the canary: {error.code().name} {error.details()}")
                found.seconds.append(asyncio.get_running_loop().time() - began)
                await asyncio.sleep(CANARY_INTERVAL)

        singing = asyncio.create_task(sing())
        try:
            yield found
        finally:
            singing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await singing


class Campaign:
    """Bad requests to one server, drawn from a seed."""

    def __init__(self, address: str, key: str, findings: Findings, seed: int, clients: int = CLIENTS) -> None:
        """address: HOST:PORT without TLS. key: of the organization that sends them. clients: at the same time."""
        self._address = address
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._findings = findings
        self._seed = seed
        self._clients = clients
        self._good: list[Good] = []

    async def prepare(self) -> int:
        """Makes the good calls of the examples and keeps their requests; returns their number."""
        async with self._channel() as channel:
            for service in SERVICES:
                self._good += await _good_requests(channel, service, self._metadata)
        creation = next(method for method in METHODS if method.name == "CreateAlert")
        self._good += [Good(creation, new_alert(condition)) for condition in CONDITIONS]
        return len(self._good)

    async def messages(self, count: int) -> None:
        """Sends so many bad messages, of every method."""
        await self._together(count, self._send_message)

    async def connections(self, count: int) -> None:
        """Makes so many connections with bad bytes."""
        port = int(self._address.rpartition(":")[2])

        async def send(_: grpc.aio.Channel, draw: random.Random) -> None:
            sent = bad_bytes((*_PATHS, *_INFRASTRUCTURE), draw)
            self._findings.note_bytes("bad bytes", await send_bytes(port, sent), sent)

        await self._together(count, send)

    async def tls(self, count: int) -> None:
        """Makes so many connections with bad bytes, to a server with TLS."""
        port = int(self._address.rpartition(":")[2])

        async def send(_: grpc.aio.Channel, draw: random.Random) -> None:
            sent = bad_tls("localhost", draw)
            self._findings.note_bytes("bad TLS", await send_bytes(port, sent), sent)

        await self._together(count, send)

    async def _together(self, count: int, send: Any) -> None:
        """Several clients, each with its own values; the same seed gives the same values."""

        async def client(number: int) -> None:
            draw = random.Random(f"{self._seed} {send.__qualname__} {number}")
            async with self._channel() as channel:
                for _ in range(number, count, self._clients):
                    await send(channel, draw)

        async with asyncio.TaskGroup() as clients:
            for number in range(self._clients):
                clients.create_task(client(number))

    def _channel(self) -> grpc.aio.Channel:
        # Otherwise the channels of one process share a connection.
        return grpc.aio.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)])

    async def _send_message(self, channel: grpc.aio.Channel, draw: random.Random) -> None:
        good = draw.choice(self._good)
        method = good.method
        encodings = [bad_encoding(good, self._good, draw) for _ in range(draw.randint(1, 3))]
        try:
            async with asyncio.timeout(LIMIT):
                if not method.server_streaming:
                    unary: Any = channel.unary_unary(good.path)
                    await unary(encodings[0], metadata=self._metadata)
                else:
                    opening: Any = channel.stream_stream if method.client_streaming else channel.unary_stream
                    sent = iter(encodings) if method.client_streaming else encodings[0]
                    await _one_answer(opening(good.path)(sent, metadata=self._metadata), draw)
            self._findings.note_answer(good.path)
        except grpc.aio.AioRpcError as error:
            self._findings.note_error(good.path, error, b"".join(encodings))
        except TimeoutError:
            self._findings.add(f"no answer within {LIMIT:g} s: {good.path} {encodings[0]!r}")


async def _one_answer(stream: Any, draw: random.Random) -> None:
    """Reads an answer of a stream, or for a short time, and leaves it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(draw.choice((0.0, 0.01, 0.05))):
            await stream.read()
    stream.cancel()


async def _good_requests(channel: grpc.aio.Channel, service: ServiceDescriptor, metadata: Metadata) -> list[Good]:
    """The requests of a service's examples, with the ids of the server, after the whole session."""
    names, found = Names(), []
    for step in session(service):
        request = names.of_server(step.request)
        found.append(Good(step.method, ParseDict(request, GetMessageClass(step.method.input_type)())))
        if step.error is None:
            with contextlib.suppress(grpc.aio.AioRpcError):  # what depends on the time of the examples
                answers = await answers_of(channel, step.method, request, len(step.answers), metadata)
                names.of_examples(answers)
    return found


def resident(pids: Sequence[int]) -> int:
    """The resident memory of processes in bytes."""
    page = resource.getpagesize()
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)
