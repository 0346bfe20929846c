"""Fixtures: a server on a free port, and clients of two organizations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from runtime.clock import Clock, ManualClock
from runtime.configuration import Configuration
from server.lifecycle import Shutdown
from server.process import serve
from store import keys
from store.database import Database
from tests.integration.alerts.client import Client


@asynccontextmanager
async def serving(database: Database, clock: Clock) -> AsyncIterator[str]:
    """A server for as long as the block lasts; its address."""
    configuration = Configuration(listen_port=0, propagation_delay=0.0, drain_timeout=5.0)
    shutdown = Shutdown()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serve(configuration, database, clock, shutdown, lambda host, port: address.set_result(f"{host}:{port}"))
    )
    first: set[asyncio.Future[Any]] = {server, address}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()  # says why
    try:
        yield await address
    finally:
        shutdown.request()
        await server


@pytest.fixture
async def api_keys(database: Database, clock: ManualClock) -> tuple[str, str]:
    """The keys of the organizations `ours` and `theirs`."""
    async with database.transaction() as connection:
        ours = await keys.create_key(connection, "ours", clock.now())
        theirs = await keys.create_key(connection, "theirs", clock.now())
    return ours.key, theirs.key


@pytest.fixture
async def channel(
    database: Database, clock: ManualClock, api_keys: tuple[str, str]
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of this test's own; nobody gets in without a key."""
    async with serving(database, clock) as address, grpc.aio.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
def ours(channel: grpc.aio.Channel, api_keys: tuple[str, str]) -> Client:
    """A client of the organization `ours`."""
    return Client(channel, api_keys[0])


@pytest.fixture
def theirs(channel: grpc.aio.Channel, api_keys: tuple[str, str]) -> Client:
    """A client of another organization."""
    return Client(channel, api_keys[1])
