"""Fixtures of the tests of WebhookService: a server, a stub, and what surrounds the notifier."""

from collections.abc import AsyncIterator

import pytest

from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.server.running import Running, running


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> AsyncIterator[Running]:
    """A server of this test's own."""
    async with running(database, clock) as it:
        yield it


@pytest.fixture
def webhooks(server: Running) -> WebhookServiceStub:
    """A stub of WebhookService."""
    return WebhookServiceStub(server.channel)


@pytest.fixture
async def house(database: Database, clock: ManualClock) -> House:
    """The organization of callers without a key."""
    return await House.build(database, clock)
