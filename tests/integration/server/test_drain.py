"""Stopping: NOT_SERVING first, then streams get `going_away`, and the server stops after the last call."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.calls.lifecycle import Shutdown
from server.health import LIVENESS
from server.listener import CannotListen
from server.process import serve
from store.postgres.database import Database
from tests.support.server.odd_service import NAME, OddClient, OddService
from tests.support.server.running import NOT_SERVING, SERVING, Running, running
from tests.support.waiting import within

FOREVER = 3600.0  # seconds; a test that has to wait for it never ends


@contextlib.asynccontextmanager
async def started(
    database: Database, clock: ManualClock, odd_service: OddService, delay: float, timeout: float
) -> AsyncIterator[Running]:
    configuration = Configuration(listen_port=0, propagation_delay=delay, drain_timeout=timeout)
    async with running(database, clock, odd_service.register, configuration) as server:
        yield server


async def test_calls_are_served_during_the_propagation_delay_while_health_is_not_serving(
    database: Database, clock: ManualClock, odd_service: OddService
) -> None:
    async with started(database, clock, odd_service, FOREVER, FOREVER) as server:
        odd = OddClient(server.channel)
        stream = odd.stream("EchoUntilDrained")()
        await stream.write("before")
        assert await stream.read() == "before"
        watch = server.health.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == SERVING
        server.shutdown.request()
        assert (await watch.read()).status == NOT_SERVING
        assert await server.health_of("") == NOT_SERVING
        assert await server.health_of(LIVENESS) == SERVING
        assert (await odd.unary("WhoAmI")("")).startswith("default")
        await stream.write("still")
        assert await stream.read() == "still"
        assert not server.stopped.done()


async def test_a_drain_ends_streams_with_going_away_and_ok(
    database: Database, clock: ManualClock, odd_service: OddService
) -> None:
    async with started(database, clock, odd_service, 0.0, FOREVER) as server:
        streams = [OddClient(server.channel).stream("EchoUntilDrained")() for _ in range(3)]
        for stream in streams:
            await stream.write("x")
            assert await stream.read() == "x"
        server.shutdown.request()
        for stream in streams:
            assert await stream.read() == "going away"
            assert await stream.code() is grpc.StatusCode.OK
        await server.stopped


async def test_a_call_in_flight_is_finished(database: Database, clock: ManualClock, odd_service: OddService) -> None:
    async with started(database, clock, odd_service, 0.0, FOREVER) as server:
        odd = OddClient(server.channel)
        stream = odd.stream("RefuseStream")()  # knows nothing of drains, and ends when its client does
        await stream.write("x")
        assert await stream.read() == "x"
        server.shutdown.request()
        assert odd_service.dependencies is not None
        await odd_service.dependencies.drain.begun.wait()
        await stream.write("last")
        assert await stream.read() == "last"
        assert not server.stopped.done()
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        await server.stopped


async def test_a_health_watch_does_not_delay_the_drain(
    database: Database, clock: ManualClock, odd_service: OddService
) -> None:
    async with started(database, clock, odd_service, 0.0, FOREVER) as server:
        watch = server.health.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == SERVING
        server.shutdown.request()
        await server.stopped  # would last FOREVER if the watch counted
        assert (await watch.read()).status == NOT_SERVING


async def test_a_call_that_does_not_end_is_cut_after_the_timeout(
    database: Database, clock: ManualClock, odd_service: OddService, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(database, clock, odd_service, 0.0, 0.2) as server:
        stream = OddClient(server.channel).stream("HangStream")()
        await stream.write("x")
        assert await stream.read() == "x"
        server.shutdown.request()
        await server.stopped
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert odd_service.cancelled.is_set()
    assert "cutting 1 calls" in caplog.text


@pytest.mark.parametrize(("delay", "begun"), [(FOREVER, "stopping: NOT_SERVING"), (0.0, "draining 1 calls")])
async def test_a_second_stop_request_stops_immediately(
    database: Database,
    clock: ManualClock,
    odd_service: OddService,
    caplog: pytest.LogCaptureFixture,
    delay: float,
    begun: str,
) -> None:
    caplog.set_level(logging.INFO)
    async with started(database, clock, odd_service, delay, FOREVER) as server:
        stream = OddClient(server.channel).stream("HangStream")()
        await stream.write("x")
        assert await stream.read() == "x"
        server.shutdown.request()
        async with within(f"the log line {begun!r}"):
            while begun not in caplog.text:  # noqa: ASYNC110 (it is the line that is waited for)
                await asyncio.sleep(0.01)
        assert not server.stopped.done()
        server.shutdown.request()
        await server.stopped
        assert odd_service.cancelled.is_set()


async def test_a_client_that_leaves_during_a_write_does_not_delay_the_drain(
    database: Database, clock: ManualClock, odd_service: OddService
) -> None:
    async with started(database, clock, odd_service, 0.0, FOREVER) as server:
        flood: Any = OddClient(server.channel).server_stream("Flood")("")
        await flood.read()
        flood.cancel()
        server.shutdown.request()
        await server.stopped


async def test_the_port_is_closed_after_the_stop(
    database: Database, clock: ManualClock, odd_service: OddService
) -> None:
    async with started(database, clock, odd_service, 0.0, FOREVER) as server:
        server.shutdown.request()
        await server.stopped
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await OddClient(channel).unary("WhoAmI")("")
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_second_server_does_not_share_the_port(
    database: Database, clock: ManualClock, odd_server: Running, odd_service: OddService
) -> None:
    taken = Configuration(listen_port=odd_server.port)
    with pytest.raises(CannotListen, match=str(odd_server.port)):
        await serve(taken, database, clock, Shutdown(), add_services=odd_service.register)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_request_the_stop(number: signal.Signals) -> None:
    shutdown = Shutdown()
    shutdown.follow_signals()
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(shutdown.requested.wait(), 60)
        assert not shutdown.forced.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(shutdown.forced.wait(), 60)
    finally:
        for handled in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(handled)
