"""Fixtures: a database for each module, an organization for each test, and a stub of AccountService.

The tests of one module share a database, and each is an organization of its own there: making databases would take
most of their time.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import account_service_pb2_grpc
from runtime.clock import ManualClock
from store.identity import keys, organizations
from store.postgres.database import Database
from tests.support.databases import Template
from tests.support.server.running import running

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


@pytest.fixture(scope="module")
def shared_url(template: Template) -> Iterator[str]:
    """The URL of the module's database."""
    with template.lent_database() as url:
        yield url


@pytest.fixture
async def shared(shared_url: str) -> AsyncIterator[Database]:
    """A pool on the module's database."""
    database = Database(shared_url)
    yield database
    await database.close()


@pytest.fixture
def organization() -> str:
    """The name of the test's organization."""
    return f"organization-{next(_numbers)}"


@pytest.fixture
async def org(shared: Database, clock: ManualClock, organization: str) -> int:
    """The id of the test's organization."""
    async with shared.transaction() as connection:
        return await organizations.get_or_create(connection, organization, clock.now())


@pytest.fixture
async def accounts(
    shared: Database, clock: ManualClock, organization: str
) -> AsyncIterator[account_service_pb2_grpc.AccountServiceStub]:
    """A stub of AccountService that calls for the test's organization."""
    async with shared.transaction() as connection:
        created = await keys.create_key(connection, organization, clock.now())
    async with running(shared, clock) as server:
        target = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(target, interceptors=[_Identified(created.key)]) as channel:
            yield account_service_pb2_grpc.AccountServiceStub(channel)
