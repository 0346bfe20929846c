"""Fixtures of the tests of enforcement: a server, a caller of it, and gateways beside it."""

from collections.abc import AsyncIterator

import pytest

from engine.ingest.commit import Committer
from engine.rules.registry import RulesRegistry
from store.identity.organizations import Organization
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, Sender, gateway_of
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
from tests.support.usage.service import GRACE

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
async def sender(caller: Caller) -> AsyncIterator[Sender]:
    """A committer of usage."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database, organization = Database(caller.database_url), Organization(organization_id, caller.organization)
    yield Sender(Committer(database, caller.clock, GRACE, RulesRegistry(), organization))
    await database.close()


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Gateway]:
    """A gateway on another server."""
    async with gateway_of(caller) as gateway:
        yield gateway
