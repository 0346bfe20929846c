"""Connections: addresses, keys, TLS, deadlines and repetitions, sync and async, against a real server."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.clients.server import Server
from tests.support.databases import NOON
from tests.support.server.certificates import HOST, Authority
from tests.support.server.running import running
from tests.support.server.sharing import StandingClock
from tidemark_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    TidemarkError,
    Tls,
    Unauthenticated,
    Unavailable,
    connect,
    connect_async,
)
from tidemark_client.v1 import (
    Alert,
    CreateAlertRequest,
    GetAlertRequest,
    ListAlertsRequest,
    ListAuditEntriesRequest,
    ListEndpointsRequest,
    ListMetricsRequest,
    ListReservationsRequest,
    WatchNotificationsRequest,
    WatchNotificationsResponse,
)

FAILURES = 2  # of each call of a failing server, before it answers


async def test_every_service_answers(server: Server) -> None:
    async with AsyncClient(server.address, api_key=server.api_key) as client:
        assert not (await client.alerts.ListAlerts(ListAlertsRequest())).alerts
        assert not (await client.accounts.ListMetrics(ListMetricsRequest())).metrics
        assert not (await client.limits.ListReservations(ListReservationsRequest(customer_id="acme"))).reservations
        assert not (await client.webhooks.ListEndpoints(ListEndpointsRequest())).endpoints
        assert (await client.audit.ListAuditEntries(ListAuditEntriesRequest())).entries is not None


async def test_errors_say_what_is_wrong(server: Server) -> None:
    async with AsyncClient(server.address, api_key=server.api_key) as client:
        with pytest.raises(NotFound) as unknown:
            await client.alerts.GetAlert(GetAlertRequest(alert_id="alr_unknown"))
        assert unknown.value.reason == "ALERT_NOT_FOUND"
        assert "alr_unknown" in unknown.value.metadata.values()
        assert unknown.value.request_id
        with pytest.raises(InvalidArgument) as bad:
            await client.alerts.CreateAlert(CreateAlertRequest(alert=Alert()))
        assert {one.field for one in bad.value.violations} >= {"alert.scope", "alert.thresholds"}
    async with AsyncClient(server.address, api_key="tmk_wrong") as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.alerts.ListAlerts(ListAlertsRequest())


async def test_sync_client_does_the_same_in_threads(server: Server) -> None:
    def use() -> None:
        with connect(server.address, api_key=server.api_key) as client:
            assert not client.alerts.ListAlerts(ListAlertsRequest()).alerts
            answer, call = client.alerts.ListAlerts.with_call(ListAlertsRequest())
            assert not answer.alerts
            assert call.code() is grpc.StatusCode.OK
            with pytest.raises(NotFound) as unknown:
                client.alerts.GetAlert(GetAlertRequest(alert_id="alr_unknown"))
            assert unknown.value.reason == "ALERT_NOT_FOUND"
            with pytest.raises(InvalidArgument):
                next(iter(client.alerts.WatchNotifications(WatchNotificationsRequest(resume_token="wrong"))))
            stream = client.alerts.WatchNotifications(WatchNotificationsRequest())
            assert next(iter(stream)).heartbeat
            stream.cancel()

    await asyncio.to_thread(use)


async def test_stream_raises_the_exceptions_of_the_package(server: Server) -> None:
    async with AsyncClient(server.address, api_key=server.api_key) as client:
        with pytest.raises(InvalidArgument):
            async for _ in client.alerts.WatchNotifications(WatchNotificationsRequest(resume_token="wrong")):
                pass
        with pytest.raises(InvalidArgument):
            await client.alerts.WatchNotifications(WatchNotificationsRequest(resume_token="wrong")).read()
        call = client.alerts.WatchNotifications(WatchNotificationsRequest())
        answer = await call.read()
        assert isinstance(answer, WatchNotificationsResponse)
        assert answer.heartbeat
        call.cancel()


async def test_address_and_key_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SERVER", server.address)
    monkeypatch.setenv("TIDEMARK_KEY", server.api_key)
    async with AsyncClient() as client:
        await client.alerts.ListAlerts(ListAlertsRequest())
    monkeypatch.setenv("TIDEMARK_API_KEY", "tmk_other")
    async with AsyncClient() as client:
        with pytest.raises(Unauthenticated):
            await client.alerts.ListAlerts(ListAlertsRequest())


def test_mistakes_in_arguments_are_found_before_a_call(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a scheme"):
        Client("https://tidemark.example.com")
    for address in ("tidemark", "tidemark:", "tidemark:grpc", "tidemark:70000", ":50051", "::1"):
        with pytest.raises(ValueError, match="has no port: write HOST:PORT"):
            Client(address)
    for address in ("tidemark:443", "[::1]:50051", "unix:/run/tidemark", "dns:tidemark", "ipv4:127.0.0.1:1"):
        Client(address).close()
    with pytest.raises(ValueError, match="not an API key"):
        Client(api_key="two words")
    with pytest.raises(ValueError, match="belong together"):
        Client(tls=Tls(certificate=b"-----BEGIN"))
    with pytest.raises(FileNotFoundError):
        Client(tls=Tls(authorities=tmp_path / "missing.pem"))
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncClient()
    assert "tmk_secret" not in repr(Client(api_key="tmk_secret").target)


async def test_connecting_to_nothing_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no server answers at"):
        await connect_async("127.0.0.1:1", timeout=0.05)
    with pytest.raises(Unavailable, match="no server answers at"):
        await asyncio.to_thread(connect, "127.0.0.1:1", timeout=0.05)


async def test_tls_with_authorities_and_a_client_certificate(shared_pool: Database, tmp_path: Path) -> None:
    authority = Authority()
    authority.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    configuration = Configuration(
        listen_host=HOST,
        listen_port=0,
        propagation_delay=0.0,
        tls_certificate=tmp_path / "tls.crt",
        tls_key=tmp_path / "tls.key",
        tls_client_ca=tmp_path / "ca.crt",
    )
    signed = authority.client("spiffe://acme.test/ns/shop/sa/cart")
    secure = Tls(tmp_path / "ca.crt", signed.certificate, signed.key.decode())
    async with running(shared_pool, StandingClock(NOON), configuration=configuration) as server:
        address = f"{HOST}:{server.port}"
        async with await connect_async(address, tls=secure) as client:
            with pytest.raises(TidemarkError) as refused:  # a certificate without an identity
                await client.alerts.ListAlerts(ListAlertsRequest())
            assert refused.value.request_id
        async with AsyncClient(address, tls=True) as stranger:
            with pytest.raises(Unavailable):
                await stranger.alerts.ListAlerts(ListAlertsRequest())


@pytest.fixture
async def failing() -> AsyncIterator[tuple[Counter[str], str]]:
    """A server that fails at first, and one method that never answers: how often each was called."""
    counts: Counter[str] = Counter()

    def method(name: str) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            counts[name] += 1
            if name == "GetAlert" and counts[name] > FAILURES:
                agents = dict(context.invocation_metadata() or ())
                counts[str(agents["user-agent"])] += 1
                return b""
            if name == "ListAlerts":
                await asyncio.sleep(60)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

        return grpc.unary_unary_rpc_method_handler(answer)

    handlers = {name: method(name) for name in ("CreateAlert", "GetAlert", "ListAlerts")}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tidemark.v1.AlertService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield counts, f"127.0.0.1:{port}"
    await server.stop(0)


async def test_only_what_is_safe_is_repeated(failing: tuple[Counter[str], str]) -> None:
    counts, address = failing
    async with AsyncClient(address, user_agent="shop/1.2") as client:
        await client.alerts.GetAlert(GetAlertRequest())
        with pytest.raises(Unavailable):
            await client.alerts.CreateAlert(CreateAlertRequest())
    assert (counts["GetAlert"], counts["CreateAlert"]) == (FAILURES + 1, 1)
    assert any(name.startswith("shop/1.2 tidemark-client/") for name in counts)


async def test_calls_have_a_deadline(failing: tuple[Counter[str], str]) -> None:
    _, address = failing
    async with AsyncClient(address, timeout=0.05) as client:
        with pytest.raises(DeadlineExceeded):
            await client.alerts.ListAlerts(ListAlertsRequest())
        call = client.alerts.ListAlerts(ListAlertsRequest(), timeout=math.inf)
        assert call.time_remaining() is None
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
