"""The health service: SERVING while the database answers; `liveness` is always SERVING."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2
from sqlalchemy import make_url

from generated.tidemark.v1 import account_service_pb2_grpc
from generated.tidemark.v1.account_service_pb2 import PutCustomerRequest
from generated.tidemark.v1.customer_pb2 import Customer
from runtime.clock import ManualClock
from server.health import LIVENESS, HealthService
from server.limits import ServerLimits
from store.postgres.database import Database
from store.postgres.probe import Probe, ProbeIntervals
from tests.support.server.odd_service import NAME, OddService
from tests.support.server.running import NOT_SERVING, SERVING, Running, reason_of, running
from tests.support.server.sharing import own_database

pytestmark = own_database

SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def server_limits() -> ServerLimits:
    return ServerLimits(probe=ProbeIntervals(reads=0.02, writes=0.02, first_retry=0.02))


@pytest.fixture
async def server(database: Database, clock: ManualClock, server_limits: ServerLimits) -> AsyncIterator[Running]:
    async with running(database, clock, OddService().register, server_limits=server_limits) as server:
        yield server


@contextmanager
def outage(url: str) -> Iterator[None]:
    """Inside the block the database refuses new connections, and existing ones are terminated."""
    name = make_url(url).database
    admin = make_url(url).set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


async def until(server: Running, service: str, status: int) -> None:
    while await server.health_of(service) != status:  # noqa: ASYNC110 (it is the answer that is waited for)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("service", ["", NAME, LIVENESS])
async def test_every_service_serves_once_the_server_listens(server: Running, service: str) -> None:
    assert await server.health_of(service) == SERVING


async def test_an_unknown_service_is_not_found(server: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await server.health_of("nope")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_an_outage_of_the_database_and_its_end(
    server: Running, database: Database, database_url: str
) -> None:
    watch = server.health.Watch(health_pb2.HealthCheckRequest(service=NAME))
    assert (await watch.read()).status == SERVING
    with outage(database_url):
        assert (await watch.read()).status == NOT_SERVING
        await until(server, "", NOT_SERVING)
        assert await server.health_of(LIVENESS) == SERVING
    assert (await watch.read()).status == SERVING
    await until(server, "", SERVING)
    watch.cancel()


async def test_calls_in_an_outage_are_unavailable_and_succeed_after_it(api: Running, database_url: str) -> None:
    accounts = account_service_pb2_grpc.AccountServiceStub(api.channel)
    put = PutCustomerRequest(customer=Customer(customer_id="acme"))
    await accounts.PutCustomer(put)
    with outage(database_url):
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await accounts.PutCustomer(put)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(raised.value) == "ERROR_REASON_DATABASE_UNAVAILABLE"
    assert (await accounts.PutCustomer(put)).customer.customer_id == "acme"


async def test_a_watch_of_an_unknown_service_reports_it_and_stays_open(server: Running) -> None:
    watch = server.health.Watch(health_pb2.HealthCheckRequest(service="nope"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    watch.cancel()


async def test_a_busy_pool_is_not_an_outage(database_url: str) -> None:
    busy = Database(database_url, pool_size=1)
    probe = Probe(busy.url)
    async with busy.transaction():
        assert await probe.answers(5.0)
    await probe.close()
    await busy.close()


async def test_a_probe_of_an_unreachable_database_fails() -> None:
    probe = Probe("postgresql://nobody@127.0.0.1:1/nothing")
    assert not await probe.answers(5.0)
    await probe.close()


async def test_a_change_between_two_reads_of_a_watch_is_not_lost() -> None:
    health = HealthService([NAME])
    context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
    watch: Any = health.Watch(health_pb2.HealthCheckRequest(service=NAME), context)
    assert (await anext(watch)).status == NOT_SERVING
    health.set_serving(True)
    assert (await anext(watch)).status == SERVING
    following = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    health.set_serving(False)
    health.set_serving(True)
    health.set_serving(False)
    assert (await following).status == NOT_SERVING
    await watch.aclose()


async def test_health_stays_not_serving_once_a_drain_has_begun() -> None:
    health = HealthService([NAME])
    health.set_serving(True)
    health.begin_drain()
    health.set_serving(True)
    assert not health.serving
