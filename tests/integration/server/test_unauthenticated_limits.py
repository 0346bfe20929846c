"""The limits of callers without a key: calls, bytes, connections and time."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.interceptors import deadline
from server.interceptors.unauthenticated_limits import MAX_INFRASTRUCTURE_CALLS
from server.limits import ServerLimits
from store.identity import keys
from store.postgres.database import Database
from tests.support.server.limits import with_server_limits
from tests.support.server.odd_service import NAME, OddClient, OddService
from tests.support.server.raw_http2 import DATA, END_STREAM, RawConnection, frame, message, raw
from tests.support.server.running import SERVING, Running, running

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
WHO = f"/{NAME}/WhoAmI"
MIB = 1 << 20
LIMIT = 30.0  # seconds that a test waits for what has to come
CONNECTIONS = 12

pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture
async def key(database: Database) -> str:
    """A key of the organization `acme`, so that callers without one are refused."""
    async with database.transaction() as connection:
        return (await keys.create_key(connection, "acme", datetime(2026, 3, 15, 12, tzinfo=UTC))).key


@pytest.fixture
async def server(
    database: Database, clock: ManualClock, odd_service: OddService, server_limits: ServerLimits
) -> AsyncIterator[Running]:
    settings = Configuration(listen_port=0, propagation_delay=0.0, max_connections=CONNECTIONS)
    async with running(database, clock, odd_service.register, settings, server_limits=server_limits) as server:
        yield server


async def assert_serves(server: Running, key: str) -> None:
    """A caller with a key and a health check are answered."""
    metadata = (("authorization", f"Bearer {key}"),)
    answer = await OddClient(server.channel).unary("WhoAmI")("", metadata=metadata, timeout=LIMIT)
    assert answer.startswith("acme ")
    assert (await server.health.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT)).status == SERVING


def resident() -> int:
    """The memory of this process in bytes, which runs the server too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def open_calls(calls: list[tuple[RawConnection, int]]) -> int:
    return sum(stream not in connection.ended for connection, stream in calls)


async def ended(calls: list[tuple[RawConnection, int]], left: int) -> None:
    """Waits until at most `left` of the calls are open."""
    async with asyncio.timeout(LIMIT):
        while open_calls(calls) > left:  # noqa: ASYNC110 (several connections change)
            await asyncio.sleep(0.01)


async def test_a_call_without_a_key_is_refused_before_its_message_is_read(server: Running, key: str) -> None:
    async with raw(server.port) as attacker:
        calls = [(attacker, attacker.call(WHO)) for _ in range(100)]
        await ended(calls, 0)
        assert all(b"the call carries no API key" in payload for payload in attacker.ended.values())
        await assert_serves(server, key)


async def test_half_sent_requests_use_little_memory_and_are_evicted(server: Running, key: str) -> None:
    async with AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(raw(server.port)) for _ in range(6)]
        calls = [(attackers[number % 6], attackers[number % 6].call(CHECK)) for number in range(120)]
        before = resident()
        rest = message(4 * MIB) + bytes(4 * MIB - 1_000)
        sending = [asyncio.create_task(connection.data(stream, rest)) for connection, stream in calls]
        await ended(calls, deadline.INFRASTRUCTURE_REQUESTS)
        await assert_serves(server, key)
        assert resident() - before < 300 * MIB  # all of them would be 480
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


@with_server_limits(ServerLimits(infrastructure_request=0.2))
async def test_a_request_that_does_not_arrive_completely_has_a_deadline(server: Running, key: str) -> None:
    async with raw(server.port) as attacker:
        calls = [(attacker, attacker.call(path)) for path in (CHECK, WATCH)]
        for _, stream in calls:
            await attacker.data(stream, message(100) + b"half")
        await ended(calls, 0)
        assert all(b"the call took longer than 0.2 seconds" in payload for payload in attacker.ended.values())
    await assert_serves(server, key)


async def test_health_calls_of_one_connection_are_limited(server: Running, key: str) -> None:
    async with raw(server.port, window=0) as attacker:  # answers that are not taken stay
        calls = []
        for path in [CHECK, WATCH] * MAX_INFRASTRUCTURE_CALLS:
            calls.append((attacker, attacker.call(path)))
            attacker.send(frame(DATA, END_STREAM, calls[-1][1], message(0)))
        await ended(calls, MAX_INFRASTRUCTURE_CALLS)
        assert open_calls(calls) == MAX_INFRASTRUCTURE_CALLS
        assert all(b"open calls of health or reflection" in payload for payload in attacker.ended.values())
        await assert_serves(server, key)


async def test_a_finished_call_does_not_count(server: Running) -> None:
    for _ in range(2 * MAX_INFRASTRUCTURE_CALLS):
        assert await server.health_of() == SERVING
        watch = server.health.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        watch.cancel()
        await watch.code()


async def test_watches_of_one_connection_are_evicted_for_those_of_others(server: Running) -> None:
    watch = server.health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    async with raw(server.port) as other:  # 16 watches of its own: with that one more than CONNECTIONS
        calls = [(other, other.call(WATCH)) for _ in range(MAX_INFRASTRUCTURE_CALLS)]
        for _, stream in calls:
            other.send(frame(DATA, END_STREAM, stream, message(0)))
        await ended(calls, CONNECTIONS - 1)
        assert open_calls(calls) == CONNECTIONS - 1
        assert all(b"was ended in favour of another" in payload for payload in other.ended.values())
        assert not watch.done()
    watch.cancel()


async def test_connections_are_limited_and_free_after_they_close(server: Running) -> None:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(raw(server.port)) for _ in range(3 * CONNECTIONS)]
        async with asyncio.timeout(LIMIT):
            while sum(not connection.closed for connection in connections) > CONNECTIONS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    async with asyncio.timeout(LIMIT):
        assert (await server.health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)).status == SERVING


@with_server_limits(ServerLimits(unidentified_calls=4))
async def test_checks_of_keys_are_limited(odd_server: Running, database: Database) -> None:
    async with AsyncExitStack() as stack:
        # Every connection of the pool is taken, so no key can be looked up.
        for _ in range(Configuration().pool_size):
            await stack.enter_async_context(database.transaction())
        attacker = await stack.enter_async_context(raw(odd_server.port))
        calls = [(attacker, attacker.call(WHO, f"Bearer tmk_{number}")) for number in range(20)]
        await ended(calls, 4)
        assert open_calls(calls) == 4
        assert all(b"was ended in favour of another" in payload for payload in attacker.ended.values())


@pytest.mark.parametrize("name", ["x" * 300, "x" * 3 * MIB])
async def test_names_are_limited_and_not_repeated(server: Running, name: str) -> None:
    request = health_pb2.HealthCheckRequest(service=name)
    for call in (server.health.Check(request), server.health.Watch(request).read()):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert "xxxx" not in str(raised.value)
    channel: Any = server.channel
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol=5 * name)
    reflecting = channel.stream_stream(REFLECT)()
    await reflecting.write(question.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await reflecting.read()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "xxxx" not in str(raised.value)


async def test_an_unknown_name_is_not_repeated(server: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await server.health_of("who.knows.v1.Nothing")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "who.knows" not in str(raised.value)


async def test_a_unary_call_takes_one_request(odd_service: OddService, server: Running, key: str) -> None:
    authorization = f"Bearer {key}"
    async with raw(server.port) as client:
        none, two = client.call(WHO, authorization), client.call(WHO, authorization)
        client.send(frame(DATA, END_STREAM, none))
        client.send(frame(DATA, END_STREAM, two, message(0) + message(0)))
        await ended([(client, none), (client, two)], 0)
        assert b"the call ended without a request" in client.ended[none]
        assert b"acme" in client.received[two]  # as gRPC does it: the second is not read


async def test_the_limit_of_a_compressed_request_holds_for_its_decompressed_size(server: Running, key: str) -> None:
    who = OddClient(server.channel).unary("WhoAmI")
    metadata = (("authorization", f"Bearer {key}"),)
    assert (await who("x" * MIB, metadata=metadata, compression=grpc.Compression.Gzip)).startswith("acme ")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await who("x" * 20 * MIB, metadata=metadata, compression=grpc.Compression.Gzip)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await assert_serves(server, key)


async def test_a_caller_that_leaves_before_its_message_leaves_no_wait(
    server: Running, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with raw(server.port) as client:
        for _ in range(50):
            client.reset(client.call(WHO, f"Bearer {key}"))
            client.reset(client.call(WHO))
            client.reset(client.call(CHECK))
        await client.flush()
        await assert_serves(server, key)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
