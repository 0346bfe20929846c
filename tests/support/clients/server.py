"""A real server for the tests of clients, and an organization of each test's own."""

from dataclasses import dataclass

from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.server.running import Running
from tests.support.server.sharing import StandingClock
from tests.support.usage.organizations import create_organization


@dataclass(frozen=True)
class Server:
    """A server, and the API key of an organization without data. Its clock stands at NOON."""

    address: str
    api_key: str


async def server_with_organization(running: Running, database: Database) -> Server:
    """The server, for a new organization."""
    _, key = await create_organization(database, StandingClock(NOON))
    return Server(f"127.0.0.1:{running.port}", key)
