"""Clients of an application behind a real Envoy that asks a real server, with the configuration of deploy/."""

import asyncio
import http.client
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.client.connection import Address, ClientTls
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    account_service_pb2_grpc,
    limit_pb2,
    limit_service_pb2_grpc,
    reservation_pb2,
    scope_pb2,
)
from generated.tidemark.v1 import limit_service_pb2 as messages
from tests.support.deployment import ENVOY_ENFORCEMENT
from tests.support.processes.envoy import envoy, free_ports
from tests.support.processes.programs import DEADLINE, Program, Programs
from tests.support.processes.up import run
from tests.support.server.certificates import HOST, Authority
from tests.support.waiting import within

CHAT, SEARCH, UNLIMITED = "/v1/chat", "/v1/search", "/status"
ALLOWED_WITHOUT = "x-envoy-auth-failure-mode-allowed"


class Application(http.server.BaseHTTPRequestHandler):
    """The application behind Envoy: it answers with the headers that it got."""

    def do_GET(self) -> None:
        """Any request."""
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing."""


@contextmanager
def application() -> Iterator[int]:
    """Its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Answer:
    """What a client gets."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def forwarded(self) -> dict[str, str]:
        """The headers that the application got."""
        assert self.status == 200, self.body
        found: dict[str, str] = json.loads(self.body)
        return found


def get(port: int, path: str, headers: dict[str, str]) -> Answer:
    """The answer of Envoy to one request, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        sent = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, sent, response.read().decode())
    finally:
        connection.close()


@dataclass
class Stage:
    """A server with keys, and what Envoy needs to ask it."""

    server: Program
    authority: Authority
    key: str
    application: int
    folder: Path

    @asynccontextmanager
    async def envoy(self, key: str = "", *, failure_mode_allow: bool = False) -> AsyncIterator["Clients"]:
        """The clients of an Envoy that asks the server with that key."""
        port, admin = free_ports(2)
        folder = self.folder / f"envoy-{port}"
        folder.mkdir()
        (folder / "servers-ca.crt").write_bytes(self.authority.pem)
        upstream = self.server.address.server.rpartition(":")[2]
        documented = [
            ("port_value: 9901", f"port_value: {admin}"),
            ("address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {port}"),
            ("address: application, port_value: 8000", f"address: 127.0.0.1, port_value: {self.application}"),
            ("address: tidemark-pods, port_value: 50051", f"address: {HOST}, port_value: {upstream}"),
            ("exact: tidemark", f"exact: {HOST}"),
            # Other tests may keep this machine busy.
            ("timeout: 0.5s", f"timeout: {DEADLINE}s"),
            ("connect_timeout: 0.25s", f"connect_timeout: {DEADLINE}s"),
            ("failure_mode_allow: false", f"failure_mode_allow: {str(failure_mode_allow).lower()}"),
        ]
        variables = {"TIDEMARK_KEY": key or self.key}
        async with envoy(folder, ENVOY_ENFORCEMENT, documented, variables):
            clients = Clients(port)
            # Until Envoy has found the server healthy, requests have the status of failure_mode_allow.
            await clients.until(SEARCH, 429)
            yield clients

    async def call(self, stub: Any, method: str, request: Any) -> Any:
        """The answer of the server to a call of the application, or of billing."""
        tls = ClientTls(self.authority.pem)
        address = Address(f"{HOST}:{self.server.address.server.rpartition(':')[2]}", tls=tls)
        async with address.channel() as channel:
            multi = getattr(stub(channel), method)
            return await multi(request, metadata=(("authorization", f"Bearer {self.key}"),), timeout=DEADLINE)

    async def limit(self, metric_id: str, amount: str) -> None:
        """A hard limit of acme."""
        limit = limit_pb2.Limit(
            limit_id=metric_id,
            amount=amount,
            customer=scope_pb2.CustomerScope(customer_id="acme"),
            quantity=access_pb2.QuantityAccess(metric_id=metric_id),
            enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
        )
        request = account_service_pb2.PutLimitRequest(limit=limit)
        await self.call(account_service_pb2_grpc.AccountServiceStub, "PutLimit", request)

    async def settle(self, reservation_id: str, quantity: str) -> int:
        """The state of a reservation after the application has settled it."""
        request = messages.SettleReservationRequest(
            customer_id="acme", reservation_id=reservation_id, quantity=quantity
        )
        answer = await self.call(limit_service_pb2_grpc.LimitServiceStub, "SettleReservation", request)
        return int(answer.reservation.state)


class Clients:
    """Clients of the application, on the port of Envoy."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def get(self, path: str, customer: str = "acme", **headers: str) -> Answer:
        """An answer; headers: more of the request, with "_" for "-"."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        customer_id = {"x-customer-id": customer} if customer else {}
        return await asyncio.to_thread(get, self._port, path, {**customer_id, **named})

    async def until(self, path: str, status: int) -> Answer:
        """The first answer with that status: Envoy starts, or has to notice that a server is here or away."""
        async with within(f"an answer {status}", DEADLINE):
            while True:
                try:
                    if (answer := await self.get(path)).status == status:
                        return answer
                except OSError:
                    pass  # Envoy does not listen yet
                await asyncio.sleep(0.1)


@pytest.fixture
async def stage(programs: Programs, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server with TLS and a key, and an application."""
    authority = Authority()
    authority.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    created = await create_key(programs, tmp_path, "admin")
    server = await programs.serve(TLS_CERTIFICATE=str(tmp_path / "tls.crt"), TLS_KEY=str(tmp_path / "tls.key"))
    with application() as port:
        stage = Stage(server, authority, created, port, tmp_path)
        await stage.limit("tokens", "2500")
        await stage.limit("searches", "0")
        yield stage


async def create_key(programs: Programs, folder: Path, *roles: str) -> str:
    """A key of the organization."""
    named = [word for role in roles for word in ("--role", role)]
    command = ("keys", "create", "--organization", "acme", *named)
    made = await asyncio.to_thread(run, folder, *command, TIDEMARK_DATABASE_URL=programs.url)
    assert made.returncode == 0, made.stderr
    return made.stdout.split()[-1]


async def test_reservation_limits_requests_and_is_settled_by_the_application(stage: Stage) -> None:
    async with stage.envoy() as clients:
        first = (await clients.get(CHAT)).forwarded
        second = (await clients.get(CHAT)).forwarded
        for forwarded in (first, second):
            assert forwarded["tidemark-reservation-id"] == forwarded["x-request-id"]
            assert forwarded["tidemark-granted-quantity"] == "1000"
            assert forwarded["tidemark-customer-id"] == "acme"
            assert "tidemark-expire-time" in forwarded
        assert first["x-request-id"] != second["x-request-id"]

        denied = await clients.get(CHAT)
        assert (denied.status, denied.headers["content-type"]) == (429, "application/json")
        assert denied.headers["retry-after"] == "1"  # reservations are in the way, and these may end at any time
        limit = json.loads(denied.body)["error"]["limit"]
        assert (limit["limit_id"], limit["remaining"], limit["held"]) == ("tokens", "500", "2000")
        assert limit["reset_time"].endswith("T00:00:00+00:00")

        settled = reservation_pb2.RESERVATION_STATE_SETTLED
        assert await stage.settle(first["tidemark-reservation-id"], "400") == settled
        assert (await clients.get(CHAT)).status == 200
        assert (await clients.get(CHAT)).status == 429

        # Routes without a limit, and another customer, are not affected.
        assert (await clients.get(UNLIMITED)).status == 200
        assert (await clients.get(CHAT, "other")).status == 200


async def test_client_cannot_choose_the_reservation(stage: Stage) -> None:
    async with stage.envoy() as clients:
        own = {"x_request_id": "mine", "tidemark_reservation_id": "mine", "x_envoy_auth_failure_mode_allowed": "true"}
        found = [(await clients.get(CHAT, **own)).forwarded for _ in range(2)]
        assert (await clients.get(CHAT, **own)).status == 429
        for forwarded in found:
            assert forwarded["tidemark-reservation-id"] == forwarded["x-request-id"] != "mine"
            assert ALLOWED_WITHOUT not in forwarded
        assert len({forwarded["x-request-id"] for forwarded in found}) == 2
        assert "tidemark-reservation-id" not in (await clients.get(UNLIMITED, **own)).forwarded


async def test_check_denies_without_a_reservation(stage: Stage) -> None:
    async with stage.envoy() as clients:
        denied = await clients.get(SEARCH)
        assert (denied.status, json.loads(denied.body)["error"]["limit"]["limit_id"]) == (429, "searches")
        await stage.limit("searches", "5")
        forwarded = (await clients.until(SEARCH, 200)).forwarded
        assert forwarded["tidemark-granted-quantity"] == "1"
        assert "tidemark-reservation-id" not in forwarded


async def test_mistakes_are_shown_and_let_nothing_pass(stage: Stage, programs: Programs, tmp_path: Path) -> None:
    reader = await create_key(programs, tmp_path, "reader")
    async with stage.envoy(reader, failure_mode_allow=True) as clients:
        refused = await clients.get(CHAT)
        assert (refused.status, json.loads(refused.body)["error"]["reason"]) == (500, "ROLE_MISSING")
        assert (await clients.get(SEARCH)).status == 429
        bad = await clients.get(SEARCH, customer="")
        assert bad.status == 400
        assert "x-customer-id" in json.loads(bad.body)["error"]["message"]


async def test_requests_are_refused_or_pass_while_the_server_is_away_as_configured(stage: Stage) -> None:
    async with stage.envoy() as closed, stage.envoy(failure_mode_allow=True) as opened:
        assert (await closed.get(SEARCH)).status == (await opened.get(SEARCH)).status == 429
        await stage.server.killed()
        refused = await closed.until(SEARCH, 503)
        assert refused.body == ""
        forwarded = (await opened.until(CHAT, 200)).forwarded
        assert forwarded[ALLOWED_WITHOUT] == "true"
        assert "tidemark-reservation-id" not in forwarded
        assert (await closed.get(UNLIMITED)).status == 200
        await stage.server.start()
        await closed.until(SEARCH, 429)
        await opened.until(SEARCH, 429)
        assert ALLOWED_WITHOUT not in (await opened.get(CHAT)).forwarded
