"""Fixtures of the tests of enforcement: a server, a caller of it, and gateways beside it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.enforcement.gateway import Gateway, gateway_of
from tests.support.usage.caller import Caller
from tests.support.usage.fixtures import (
    caller,
    caller_of_own_server,
    caller_of_shared_server,
    own_pool,
    shared_database_url,
    shared_pool,
    shared_server,
)

__all__ = [
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "own_pool",
    "shared_database_url",
    "shared_pool",
    "shared_server",
]


@pytest.fixture
async def gateway(caller: Caller) -> AsyncIterator[Gateway]:
    """A gateway on a pipeline of its own."""
    async with gateway_of(caller) as gateway:
        yield gateway


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Gateway]:
    """A gateway on another server."""
    async with gateway_of(caller) as gateway:
        yield gateway
