"""Fixtures: the caller of usage tests, and a stub of AccountService, each of an organization of the test's own."""

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2_grpc
from runtime.clock import ManualClock
from store.identity import keys, organizations
from store.postgres.database import Database
from tests.support.server.running import Running, running
from tests.support.server.sharing import is_shared
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
    "accounts",
    "accounts_server",
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "org",
    "organization",
    "own_accounts_server",
    "own_pool",
    "shared",
    "shared_database_url",
    "shared_pool",
    "shared_server",
]

_numbers = itertools.count(1)


class _Identified(grpc.aio.UnaryUnaryClientInterceptor):
    """Puts the key of the test's organization on every call that carries none."""

    def __init__(self, key: str) -> None:
        self._metadata = grpc.aio.Metadata(("authorization", f"Bearer {key}"))

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Continues the call with the key."""
        sent = client_call_details
        identified = grpc.aio.ClientCallDetails(
            sent.method, sent.timeout, sent.metadata or self._metadata, sent.credentials, sent.wait_for_ready
        )
        return await continuation(identified, request)


@pytest.fixture
def shared(shared_pool: Database) -> Database:
    """A pool on the module's database."""
    return shared_pool


@pytest.fixture
def organization() -> str:
    """The name of the test's organization."""
    return f"organization-of-accounts-{next(_numbers)}"


@pytest.fixture
async def org(shared: Database, clock: ManualClock, organization: str) -> int:
    """The id of the test's organization."""
    async with shared.transaction() as connection:
        return await organizations.get_or_create(connection, organization, clock.now())


@pytest.fixture
async def own_accounts_server(own_pool: Database, clock: ManualClock) -> AsyncIterator[Running]:
    """A server of this test's own."""
    async with running(own_pool, clock) as server:
        yield server


@pytest.fixture
def accounts_server(request: pytest.FixtureRequest) -> Running:
    """The server of `accounts`; see `shares_server` for whose server it is."""
    if is_shared(request):
        server, _ = request.getfixturevalue("shared_server")
    else:
        server = request.getfixturevalue("own_accounts_server")
    assert isinstance(server, Running)
    return server


@pytest.fixture
async def accounts(
    accounts_server: Running, shared: Database, clock: ManualClock, organization: str
) -> AsyncIterator[account_service_pb2_grpc.AccountServiceStub]:
    """A stub of AccountService that calls for the test's organization."""
    async with shared.transaction() as connection:
        created = await keys.create_key(connection, organization, clock.now())
    target = f"127.0.0.1:{accounts_server.port}"
    async with grpc.aio.insecure_channel(target, interceptors=[_Identified(created.key)]) as channel:
        yield account_service_pb2_grpc.AccountServiceStub(channel)
