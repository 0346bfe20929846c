"""The servers that are compared: a plain one, and one with TLS, API keys and metrics."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

from bench.support.access import Access
from bench.support.stack import FOLDER, PostgreSQL
from runtime.clock import SystemClock
from store.identity import keys
from store.postgres.database import Database
from tests.support.processes.programs import Program
from tests.support.server.certificates import HOST, Authority


@dataclass(frozen=True)
class Server:
    """A server, its database, and the access of a client."""

    program: Program
    url: str
    access: Access


class Certificates:
    """An authority, and the files of a server's certificate that it signed."""

    def __init__(self, name: str) -> None:
        """name: of the files."""
        self.authority = Authority()
        self._certificate, self._key = FOLDER / f"{name}.crt", FOLDER / f"{name}.key"

    def renew(self) -> None:
        """Writes a new certificate and its key."""
        self.authority.server().write(self._certificate, self._key)

    def settings(self) -> dict[str, str]:
        """The settings of a server with this certificate."""
        return {"TIDEMARK_TLS_CERTIFICATE": str(self._certificate), "TIDEMARK_TLS_KEY": str(self._key)}

    def remove(self) -> None:
        """Removes the files."""
        self._certificate.unlink(missing_ok=True)
        self._key.unlink(missing_ok=True)


@asynccontextmanager
async def plain(postgresql: PostgreSQL, name: str) -> AsyncIterator[Server]:
    """A server without TLS, keys and metrics, on a new database of that name."""
    url = postgresql.create_database(name)
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url)
        yield Server(program, url, Access(program.address.server))


@asynccontextmanager
async def secured(
    postgresql: PostgreSQL, name: str, certificates: Certificates, settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Server]:
    """A server with TLS, an API key and metrics, on a new database of that name."""
    certificates.renew()
    url = postgresql.create_database(name)
    merged = {**certificates.settings(), "TIDEMARK_METRICS_LISTEN": "127.0.0.1:0", **settings}
    try:
        async with contextlib.AsyncExitStack() as exits:
            program = await postgresql.server(exits, url, merged)
            # By the name that is in the certificate.
            server = f"{HOST}:{program.address.server.rpartition(':')[2]}"
            yield Server(program, url, Access(server, certificates.authority.pem, await _key(url)))
    finally:
        certificates.remove()


async def _key(url: str) -> str:
    """The key of a new organization."""
    database = Database(url, pool_size=1)
    try:
        async with database.transaction() as connection:
            return (await keys.create_key(connection, "acme", SystemClock().now())).key
    finally:
        await database.close()
