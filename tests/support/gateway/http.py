"""A server of this test's own that speaks HTTP, too, and a client of it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from gateway.application import Settings
from gateway.cloudevents.mapping import Mapping as EventMapping
from gateway.cloudevents.mapping import default_mapping
from gateway.limits import DEFAULT_HTTP_LIMITS, HttpLimits
from gateway.listening import HttpFront
from runtime.clock import Clock
from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.server.running import UNARY_DEADLINE, Running, running

Json = Any
MAX_BODY = 4 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """An answer: its code, its headers, its body."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Json:
        """The error in the body."""
        return self.json["error"]

    @property
    def reason(self) -> str:
        """The reason of the error."""
        found: str = self.detail("ErrorInfo")["reason"]
        return found

    @property
    def fields(self) -> list[str]:
        """The paths of the bad fields of the error."""
        return [one["field"] for one in self.detail("BadRequest")["fieldViolations"]]

    def detail(self, name: str) -> Json:
        """A detail of the error."""
        return next(one for one in self.error["details"] if one["@type"].endswith(f".{name}"))


class HttpClient:
    """A client of an HTTP port, with the key of an organization or without one."""

    def __init__(self, session: aiohttp.ClientSession, base: str, key: str = "") -> None:
        self.session = session
        self.base = base
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def with_key(self, key: str) -> "HttpClient":
        """The same with another key."""
        return HttpClient(self.session, self.base, key)

    def opening(self, method: str, target: str, **options: Any) -> Any:
        """A request; target: path and query, encoded as they are sent."""
        headers = {**self.headers, **options.pop("headers", {})}
        url = URL(self.base + target, encoded=True)
        return self.session.request(method, url, headers=headers, allow_redirects=False, **options)

    async def send(self, method: str, target: str, **options: Any) -> Answer:
        """The answer to a request."""
        async with self.opening(method, target, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, target: str, **options: Any) -> Answer:
        """The answer to GET."""
        return await self.send("GET", target, **options)

    async def post(self, target: str, body: Json = None, **options: Any) -> Answer:
        """The answer to POST with JSON."""
        return await self.send("POST", target, json=body, **options)


@dataclass(frozen=True)
class HttpServer:
    """A server that listens for gRPC and for HTTP."""

    server: Running
    client: HttpClient
    port: int

    @property
    def base(self) -> str:
        """The URL of the HTTP port."""
        return self.client.base


@asynccontextmanager
async def serving_http(
    database: Database,
    clock: Clock,
    configuration: Configuration | None = None,
    *,
    limits: HttpLimits = DEFAULT_HTTP_LIMITS,
    mapping: EventMapping | None = None,
    key: str = "",
    max_connections: int = 200,
    **options: Any,
) -> AsyncIterator[HttpServer]:
    """Serves until the block ends. options: of `running`."""
    configuration = configuration or Configuration(
        listen_port=0, http_listen=("127.0.0.1", 0), propagation_delay=0.0, unary_deadline=UNARY_DEADLINE
    )
    ports: list[int] = []
    front = HttpFront(
        "127.0.0.1",
        0,
        Settings(
            configuration.max_message_bytes,
            configuration.http_allow_origins,
            mapping or default_mapping(),
            configuration.max_batch_events,
        ),
        max_connections=max_connections,
        on_listening=lambda host, port: ports.append(port),
        limits=limits,
    )
    async with running(database, clock, configuration=configuration, front=front, **options) as server:
        [port] = ports
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
            base = "http://127.0.0.1" if configuration.tls_certificate is None else "https://localhost"
            yield HttpServer(server, HttpClient(session, f"{base}:{port}", key), port)
