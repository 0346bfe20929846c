"""Who calls over HTTP: keys, roles, certificates, addresses; and what a caller cannot invent."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from generated.tidemark.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2_grpc,
    plan_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime import forwarding as forwarding_module
from runtime.clock import ManualClock, SystemClock
from runtime.configuration import Configuration
from runtime.forwarding import CERTIFICATE_KEY, PEER_KEY, SECRET_KEY, Forwarding
from server.authentication.api_keys import UnsafeListen
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.gateway.echo import Echo
from tests.support.gateway.http import Answer, HttpClient, HttpServer, serving_http
from tests.support.server.certificates import HOST, Authority, Signed
from tests.support.server.running import UNARY_DEADLINE, reason_of

SHOP = "spiffe://acme.test/ns/shop/sa/cart"
PLAN = {"displayName": "Gold"}


async def create_key(database: Database, *roles: Role, identity: str = "", **settings: Any) -> str:
    """A key of acme."""
    async with database.transaction() as connection:
        stated = KeySettings(frozenset(roles or {Role.ADMIN}), **settings)
        return (await keys.create_key(connection, "acme", SystemClock().now(), stated, identity=identity)).key


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> AsyncIterator[HttpServer]:
    async with serving_http(database, clock) as http:
        yield http


async def last_origin(client: HttpClient) -> dict[str, str]:
    """From where the last change came, as the audit log says."""
    entries = (await client.get("/v1/auditEntries")).json["entries"]
    found: dict[str, str] = entries[0]["origin"]
    return found


async def test_without_any_key_callers_of_this_machine_act_for_default(server: HttpServer) -> None:
    assert (await server.client.get("/v1/alerts")).code == 200
    put = await server.client.send("PUT", "/v1/plans/gold", json=PLAN)
    assert put.code == 200


async def test_calls_need_a_key_once_one_exists(server: HttpServer, database: Database) -> None:
    key = await create_key(database)
    for client in (server.client, server.client.with_key("tmk_wrong")):
        refused = await client.get("/v1/alerts")
        assert (refused.code, refused.reason) == (401, "ERROR_REASON_UNAUTHENTICATED")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert refused.error["status"] == "UNAUTHENTICATED"
        assert "tmk_wrong" not in refused.body.decode()
    assert (await server.client.with_key(key).get("/v1/alerts")).code == 200
    # What needs no key shows nothing of an organization.
    for page in ("/", "/openapi.json", "/healthz", "/readyz"):
        assert (await server.client.get(page)).code == 200


async def test_an_authorization_that_is_no_key_is_refused(server: HttpServer) -> None:
    for value in ("", "Bearer", "Basic dXNlcjpwYXNz", "Bearer ü", "x" * 5_000):
        refused = await server.client.get("/v1/alerts", headers={"Authorization": value})
        assert (refused.code, refused.reason) == (401, "ERROR_REASON_UNAUTHENTICATED"), value


async def test_two_different_keys_are_refused(server: HttpServer, database: Database) -> None:
    first, second = await create_key(database), await create_key(database)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"GET /v1/alerts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {first}\r\n"
    writer.write(f"{head}Authorization: Bearer {second}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_roles_and_customers_of_a_key_hold(server: HttpServer, database: Database) -> None:
    await create_key(database)
    reader = server.client.with_key(await create_key(database, Role.READER))
    refused = await reader.send("PUT", "/v1/plans/gold", json=PLAN)
    assert (refused.code, refused.reason) == (403, "ERROR_REASON_ROLE_MISSING")
    assert (await reader.get("/v1/plans")).code == 200
    of_acme = server.client.with_key(await create_key(database, Role.READER, customer_id="acme"))
    assert (await of_acme.get("/v1/notifications?customerIds=acme")).code == 200
    for target in ("/v1/notifications", "/v1/notifications?customerIds=acme&customer_ids=other"):
        other = await of_acme.get(target)
        assert (other.code, other.reason) == (403, "ERROR_REASON_OTHER_CUSTOMER")


async def test_the_audit_log_has_the_address_of_the_http_client_and_never_what_it_claims(
    server: HttpServer, database: Database
) -> None:
    client = server.client.with_key(await create_key(database))
    claims = {
        "User-Agent": "shop/1.0",
        "X-Request-Id": "req-1",
        "X-Forwarded-For": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        SECRET_KEY: "guessed",
        PEER_KEY: "ipv4:203.0.113.9:1",
        "x-tidemark-forwarded-user-agent": "forged",
        CERTIFICATE_KEY: "AAAA",
        "grpc-timeout": "1n",
        "x-forwarded-client-cert": f"URI={SHOP}",
    }
    put = await client.send("PUT", "/v1/plans/gold", json=PLAN, headers=claims)
    assert put.code == 200, put.body
    assert put.headers["X-Request-Id"] == "req-1"
    origin = await last_origin(client)
    assert origin["peer"].startswith("ipv4:127.0.0.1:")
    assert origin["peer"] != f"ipv4:127.0.0.1:{server.port}"
    assert (origin["userAgent"], origin["requestId"]) == ("shop/1.0", "req-1")
    assert "clientIdentity" not in origin


async def test_the_socket_behind_is_no_way_around_a_key(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Forwarding] = []
    real = forwarding_module.forwarding

    def noting() -> Any:
        context = real()

        class Noting:
            def __enter__(self) -> Forwarding:
                opened.append(context.__enter__())
                return opened[0]

            def __exit__(self, *error: Any) -> Any:
                return context.__exit__(*error)

        return Noting()

    monkeypatch.setattr("server.process.forwarding", noting)
    key = await create_key(database)
    async with serving_http(database, clock), grpc.aio.insecure_channel(opened[0].target) as channel:
        stub = alert_service_pb2_grpc.AlertServiceStub(channel)
        for metadata in (
            (),
            ((SECRET_KEY, ""), (PEER_KEY, "ipv4:127.0.0.1:1")),
            ((SECRET_KEY, "guessed"), (PEER_KEY, "ipv4:127.0.0.1:1")),
            (("authorization", f"Bearer {key}"),),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ListAlerts(messages.ListAlertsRequest(), metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert reason_of(raised.value) == "ERROR_REASON_UNAUTHENTICATED"
        # With the secret, a call still needs a key.
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ListAlerts(messages.ListAlertsRequest(), metadata=((SECRET_KEY, opened[0].secret),))
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert opened[0].target.startswith("unix:")


async def test_the_secret_means_nothing_on_the_port(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.forwarding.secrets.token_urlsafe", lambda _: "known")
    key = await create_key(database)
    async with serving_http(database, clock) as server:
        forged = ((SECRET_KEY, "known"), (PEER_KEY, "ipv4:203.0.113.9:1"), ("authorization", f"Bearer {key}"))
        accounts = account_service_pb2_grpc.AccountServiceStub(server.server.channel)
        plan = plan_pb2.Plan(plan_id="gold")
        await accounts.PutPlan(account_service_pb2.PutPlanRequest(plan=plan), metadata=forged)
        assert (await last_origin(server.client.with_key(key)))["peer"].startswith("ipv4:127.0.0.1:")


async def test_a_port_for_other_machines_needs_a_key_first(database: Database, clock: ManualClock) -> None:
    configuration = Configuration(listen_port=0, http_listen=("0.0.0.0", 0), propagation_delay=0.0)
    with pytest.raises(UnsafeListen):
        async with serving_http(database, clock, configuration):
            pass


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:80", "", "localhost.attacker.example"])
async def test_a_page_that_gives_its_name_this_address_is_refused(echo: Echo, http: HttpClient, host: str) -> None:
    echo.answers, echo.method = [messages.ListAlertsResponse()], ""
    refused = await http.get("/v1/alerts", headers={"Host": host})
    assert (refused.code, refused.reason) == (401, "ERROR_REASON_UNAUTHENTICATED")
    assert echo.method == ""
    # With a key, a request may name the machine as it likes.
    assert (await http.with_key("tmk_x").get("/v1/alerts", headers={"Host": host})).code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]", "[::1]:8080"])
async def test_this_machine_has_several_names(echo: Echo, http: HttpClient, host: str) -> None:
    echo.answers = [messages.ListAlertsResponse()]
    assert (await http.get("/v1/alerts", headers={"Host": host})).code == 200


class Https:
    """Calls over TLS, each on a connection of its own."""

    def __init__(self, server: HttpServer, authority: Authority, folder: Path) -> None:
        self._server = server
        self._authority = authority
        self._folder = folder

    async def get(self, target: str, signed: Signed | None = None, **options: Any) -> Answer:
        context = ssl.create_default_context(cadata=self._authority.pem.decode())
        if signed is not None:
            signed.write(self._folder / "client.crt", self._folder / "client.key")
            context.load_cert_chain(self._folder / "client.crt", self._folder / "client.key")
        headers = {"Connection": "close", **options.pop("headers", {})}
        return await self._server.client.get(target, ssl=context, headers=headers, **options)


def mutual(folder: Path, authority: Authority, *, trusted: tuple[str, ...] = ()) -> Configuration:
    """Of a server whose ports have TLS, and whose clients need a certificate."""
    authority.server().write(folder / "tls.crt", folder / "tls.key")
    (folder / "ca.crt").write_bytes(authority.pem)
    return Configuration(
        listen_host=HOST,
        listen_port=0,
        http_listen=("127.0.0.1", 0),
        propagation_delay=0.0,
        unary_deadline=UNARY_DEADLINE,
        tls_certificate=folder / "tls.crt",
        tls_key=folder / "tls.key",
        tls_client_ca=folder / "ca.crt",
        trusted_proxies=trusted,
    )


async def test_a_client_certificate_identifies_over_https(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    authority = Authority()
    await create_key(database, Role.READER, identity=SHOP)
    async with serving_http(database, clock, mutual(tmp_path, authority)) as server:
        https = Https(server, authority, tmp_path)
        assert (await https.get("/v1/alerts", authority.client(SHOP))).code == 200
        unknown = await https.get("/v1/alerts", authority.client("spiffe://acme.test/other"))
        assert (unknown.code, unknown.reason) == (401, "ERROR_REASON_UNAUTHENTICATED")
        for signed in (None, Authority().client(SHOP)):
            with pytest.raises((OSError, aiohttp.ClientError)):
                await https.get("/v1/alerts", signed)
        admin = await create_key(database)
        client = authority.client(SHOP)
        key = {"Authorization": f"Bearer {admin}"}
        assert (await https.get("/v1/auditEntries", client, headers=key)).code == 200


async def test_only_a_trusted_proxy_speaks_for_the_client_whose_certificate_it_has_checked(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    authority = Authority()
    await create_key(database, Role.READER, identity=SHOP)
    proxy = authority.client("spiffe://acme.test/proxy")
    checked = {"X-Forwarded-Client-Cert": f"URI={SHOP}"}
    configuration = mutual(tmp_path, authority, trusted=("spiffe://acme.test/proxy",))
    async with serving_http(database, clock, configuration) as server:
        https = Https(server, authority, tmp_path)
        assert (await https.get("/v1/alerts", proxy, headers=checked)).code == 200
        forged = await https.get("/v1/alerts", authority.client("spiffe://acme.test/x"), headers=checked)
        assert forged.code == 401


async def test_new_certificates_and_authorities_are_used_without_a_restart(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    first, second = Authority(), Authority()
    await create_key(database, Role.READER, identity=SHOP)
    async with serving_http(database, clock, mutual(tmp_path, first)) as server:
        assert (await Https(server, first, tmp_path).get("/v1/alerts", first.client(SHOP))).code == 200
        (tmp_path / "tls.key").write_text("not a key")  # what does not fit together changes nothing
        assert (await Https(server, first, tmp_path).get("/v1/alerts", first.client(SHOP))).code == 200
        second.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
        (tmp_path / "ca.crt").write_bytes(second.pem)
        assert (await Https(server, second, tmp_path).get("/v1/alerts", second.client(SHOP))).code == 200
        with pytest.raises((OSError, aiohttp.ClientError)):  # its authority is no longer one
            await Https(server, second, tmp_path).get("/v1/alerts", first.client(SHOP))


async def test_the_large_body_of_an_unknown_caller_is_not_read(server: HttpServer, database: Database) -> None:
    key = await create_key(database)
    events = [{"eventId": "e" * 100} for _ in range(2_000)]
    refused = await server.client.post("/v1/usage:evaluate", {"batch": {"events": events}})
    assert (refused.code, refused.reason) == (401, "ERROR_REASON_UNAUTHENTICATED")
    reader = server.client.with_key(await create_key(database, Role.READER))
    denied = await reader.post("/v1/usage:evaluate", {"batch": {"events": events}})
    assert (denied.code, denied.reason) == (403, "ERROR_REASON_ROLE_MISSING")
    served = await server.client.with_key(key).post("/v1/usage:evaluate", {"batch": {"events": events}})
    assert served.code == 200
    assert len(served.json["outcome"]["rejected"]) == 2_000


async def test_where_nothing_can_be_written_the_socket_is_an_abstract_one(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("runtime.forwarding.tempfile.TemporaryDirectory", refuse)
    key = await create_key(database)
    async with serving_http(database, clock) as server:
        client = server.client.with_key(key)
        assert (await client.send("PUT", "/v1/plans/gold", json=PLAN)).code == 200
        assert (await last_origin(client))["peer"].startswith("ipv4:127.0.0.1:")
        assert (await server.client.get("/v1/alerts")).code == 401
