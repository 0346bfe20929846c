"""Fixtures of the tests of the Node client."""

import pytest

from store.postgres.database import Database
from tests.support.clients.node import needs_node
from tests.support.clients.server import Server, server_with_organization
from tests.support.server.running import Running


@pytest.fixture(scope="session")
def node() -> None:
    """Skips the test where the client cannot run, before a server is started for it."""
    needs_node()


@pytest.fixture
async def server(shared_server: tuple[Running, Database]) -> Server:
    """The server that the tests of the module share, and an organization of the test's own."""
    return await server_with_organization(*shared_server)
