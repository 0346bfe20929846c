"""TLS on the port: certificates of the server and of clients, identities, proxies, and new certificates."""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from cli.client.connection import Address, ClientTls
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import alert_service_pb2_grpc
from runtime.clock import Clock, ManualClock, SystemClock
from runtime.configuration import Configuration
from server.services import register
from server.tls import BadCertificate
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.monitoring.scraping import monitoring_socket, scrape
from tests.support.server.certificates import HOST, Authority, Signed
from tests.support.server.running import Running, reason_of, running

SHOP = "spiffe://acme.test/ns/shop/sa/cart"
LIMIT = 60.0  # seconds, of everything that is waited for


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def configuration(authority: Authority, tmp_path: Path) -> Configuration:
    """Of a server whose certificate is in files."""
    authority.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    return Configuration(
        listen_host=HOST,
        listen_port=0,
        propagation_delay=0.0,
        tls_certificate=tmp_path / "tls.crt",
        tls_key=tmp_path / "tls.key",
    )


@contextlib.asynccontextmanager
async def serving(database: Database, clock: Clock, configuration: Configuration) -> AsyncIterator[Running]:
    async with running(database, clock, register, configuration) as server:
        yield server


@contextlib.asynccontextmanager
async def client(server: Running, authority: Authority, signed: Signed | None = None) -> AsyncIterator[Any]:
    """A stub of AlertService over TLS, with a client certificate if one is given."""
    tls = ClientTls(authority.pem)
    if signed is not None:
        tls = ClientTls(authority.pem, signed.certificate, signed.key)
    async with Address(f"{HOST}:{server.port}", tls=tls).channel() as channel:
        yield alert_service_pb2_grpc.AlertServiceStub(channel)


async def listed(stub: Any, *metadata: tuple[str, str]) -> grpc.aio.AioRpcError | None:
    """Lists alerts; returns the error, if any."""
    try:
        await stub.ListAlerts(messages.ListAlertsRequest(), metadata=metadata, timeout=LIMIT)
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def add_identity(database: Database, identity: str, *roles: Role) -> str:
    async with database.transaction() as connection:
        settings = KeySettings(frozenset(roles or {Role.ADMIN}))
        return (await keys.create_key(connection, "acme", SystemClock().now(), settings, identity=identity)).key_id


async def test_port_with_a_certificate_accepts_tls_only(
    database: Database, clock: ManualClock, configuration: Configuration, authority: Authority
) -> None:
    async with serving(database, clock, configuration) as server:
        async with client(server, authority) as stub:
            assert await listed(stub) is None
        async with client(server, Authority()) as stub:
            refused = await listed(stub)
            assert refused is not None
            assert refused.code() is grpc.StatusCode.UNAVAILABLE
        async with Address(f"{HOST}:{server.port}").channel() as channel:
            refused = await listed(alert_service_pb2_grpc.AlertServiceStub(channel))
            assert refused is not None
            assert refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_client_certificate_identifies_organization_and_roles(
    database: Database, clock: ManualClock, configuration: Configuration, authority: Authority, tmp_path: Path
) -> None:
    await add_identity(database, SHOP, Role.READER)
    await add_identity(database, "Ingest.test", Role.INGESTER)
    mutual = replace(configuration, tls_client_ca=tmp_path / "ca.crt")
    async with serving(database, clock, mutual) as server:
        async with client(server, authority, authority.client("unknown.test", SHOP)) as stub:
            assert await listed(stub) is None
        async with client(server, authority, authority.client("ingest.test")) as stub:
            refused = await listed(stub)
            assert refused is not None
            assert reason_of(refused) == "ERROR_REASON_ROLE_MISSING"
        async with client(server, authority, authority.client("unknown.test")) as stub:
            refused = await listed(stub)
            assert refused is not None
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "unknown.test" in str(refused.details())
            # A key in the metadata counts more than the certificate.
            key = (await create_key(database)).key
            assert await listed(stub, ("authorization", f"Bearer {key}")) is None
        for without in (None, Authority().client(SHOP)):
            async with client(server, authority, without) as stub:
                refused = await listed(stub)
                assert refused is not None
                assert refused.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("shop.test\0.evil.test"),
        x509.UniformResourceIdentifier("shop.test"),
        x509.UniformResourceIdentifier(f"{SHOP}\0/evil"),
        x509.DNSName(SHOP),
        x509.DNSName("*.test"),
        x509.RFC822Name("shop.test"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ],
    ids=("NUL in a DNS name", "URI without a scheme", "NUL in a URI", "SPIFFE id as DNS", "wildcard", "e-mail", "IP"),
)
async def test_name_of_another_kind_or_with_a_nul_byte_identifies_no_client(
    database: Database,
    clock: ManualClock,
    configuration: Configuration,
    authority: Authority,
    tmp_path: Path,
    name: x509.GeneralName,
) -> None:
    for identity in (SHOP, "shop.test", "127.0.0.1"):
        await add_identity(database, identity)
    mutual = replace(configuration, tls_client_ca=tmp_path / "ca.crt")
    async with (
        serving(database, clock, mutual) as server,
        client(server, authority, authority.client_with([name])) as stub,
    ):
        refused = await listed(stub)
        assert refused is not None
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


async def create_key(database: Database) -> keys.CreatedKey:
    async with database.transaction() as connection:
        return await keys.create_key(connection, "acme", SystemClock().now())


async def test_revoked_identity_is_refused_and_may_belong_to_an_organization_again(database: Database) -> None:
    key_id = await add_identity(database, SHOP)
    with pytest.raises(keys.IdentityTaken, match=SHOP):
        await add_identity(database, SHOP)
    async with database.transaction() as connection:
        assert await keys.revoke_key(connection, key_id, SystemClock().now())
    assert await add_identity(database, SHOP) != key_id


async def test_identity_is_no_key(database: Database, clock: ManualClock) -> None:
    await add_identity(database, SHOP)
    async with running(database, clock) as server:
        stub: Any = alert_service_pb2_grpc.AlertServiceStub(server.channel)
        for sent in (SHOP, f"identity {SHOP}"):
            refused = await listed(stub, ("authorization", f"Bearer {sent}"))
            assert refused is not None
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("trusted", "accepted"), [(("127.0.0.0/8", "::1/128"), True), (("10.0.0.0/8",), False)])
async def test_forwarded_certificate_is_believed_only_from_trusted_peers(
    database: Database, clock: ManualClock, trusted: tuple[str, ...], accepted: bool
) -> None:
    await add_identity(database, SHOP, Role.READER)
    behind_proxy = Configuration(listen_port=0, propagation_delay=0.0, trusted_proxies=trusted)
    async with serving(database, clock, behind_proxy) as server:
        stub: Any = alert_service_pb2_grpc.AlertServiceStub(server.channel)
        refused = await listed(stub, ("x-forwarded-client-cert", f"By=x;Hash=1;URI={SHOP}"))
        assert (refused is None) == accepted
        refused = await listed(stub)
        assert refused is not None
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_identity_of_a_proxy_is_not_that_of_its_clients(
    database: Database, clock: ManualClock, configuration: Configuration, authority: Authority, tmp_path: Path
) -> None:
    await add_identity(database, "gateway.test")
    await add_identity(database, SHOP, Role.READER)
    mutual = replace(configuration, tls_client_ca=tmp_path / "ca.crt", trusted_proxies=("gateway.test",))
    async with serving(database, clock, mutual) as server:
        async with client(server, authority, authority.client("gateway.test")) as stub:
            assert await listed(stub, ("x-forwarded-client-cert", f"URI={SHOP}")) is None
            assert await listed(stub) is not None, "a client without a certificate is not the gateway"
        async with client(server, authority, authority.client("other.test")) as stub:
            assert await listed(stub, ("x-forwarded-client-cert", f"URI={SHOP}")) is not None


async def test_new_certificate_is_used_for_new_connections_and_open_streams_go_on(
    database: Database,
    clock: ManualClock,
    configuration: Configuration,
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    other = Authority()
    async with serving(database, clock, configuration) as server, client(server, authority) as stub:
        watch = stub.WatchNotifications(messages.WatchNotificationsRequest())
        assert (await watch.read()).heartbeat
        new = other.server()
        (tmp_path / "tls.crt").write_bytes(new.certificate)
        async with client(server, authority) as again:
            assert await listed(again) is None, "the key is not that of the new certificate yet"
        assert "is not the one of the certificate" in caplog.text
        (tmp_path / "tls.key").write_bytes(new.key)
        async with client(server, other) as again:
            assert await listed(again) is None
        async with client(server, authority) as again:
            assert await listed(again) is not None
        assert await listed(stub) is None
        assert not watch.done()
        watch.cancel()


async def test_new_certificate_is_used_when_it_can_be_read_later_than_it_was_written(
    database: Database,
    clock: ManualClock,
    configuration: Configuration,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other, read_bytes, readable = Authority(), Path.read_bytes, False

    def reading(path: Path) -> bytes:
        if path.name == "tls.key" and not readable:
            raise PermissionError(13, "Permission denied")  # root would read the file all the same
        return read_bytes(path)

    async with serving(database, clock, configuration) as server:
        monkeypatch.setattr(Path, "read_bytes", reading)
        other.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
        for _ in range(2):
            async with client(server, authority) as stub:
                assert await listed(stub) is None
        assert caplog.text.count("tls.key cannot be read") == 1
        readable = True
        async with client(server, other) as stub:
            assert await listed(stub) is None


async def test_stream_ends_when_the_certificate_of_its_client_expires(
    database: Database, configuration: Configuration, authority: Authority, tmp_path: Path
) -> None:
    await add_identity(database, SHOP)
    mutual = replace(configuration, tls_client_ca=tmp_path / "ca.crt")
    short = authority.client(SHOP, lifetime=timedelta(seconds=5))
    async with serving(database, SystemClock(), mutual) as server, client(server, authority, short) as stub:
        watch = stub.WatchNotifications(messages.WatchNotificationsRequest())
        assert (await watch.read()).heartbeat
        with pytest.raises(grpc.aio.AioRpcError, match="certificate has expired"):
            async with asyncio.timeout(LIMIT):
                await watch.read()
        refused = await listed(stub)
        assert refused is not None
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("no certificate", "no certificate"),
        ("another key", "is not the one of the certificate"),
        ("no file", "No such file"),
        ("authority first", "does not begin with the server's certificate"),
        ("curve", "RSA key, or one of the curve"),
        ("ed25519", "RSA key, or one of the curve"),
        ("password", "without a password"),
    ],
)
async def test_server_does_not_start_with_files_that_do_not_fit(
    database: Database,
    clock: ManualClock,
    configuration: Configuration,
    authority: Authority,
    tmp_path: Path,
    broken: str,
    problem: str,
) -> None:
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    match broken:
        case "no certificate":
            (tmp_path / "tls.crt").write_text("nonsense")
        case "another key":
            (tmp_path / "tls.key").write_bytes(authority.server().key)
        case "authority first":
            (tmp_path / "tls.crt").write_bytes(authority.pem + (tmp_path / "tls.crt").read_bytes())
        case "curve":
            authority.server(ec.generate_private_key(ec.SECP256K1())).write(*files)
        case "ed25519":
            authority.server(ed25519.Ed25519PrivateKey.generate()).write(*files)
        case "password":
            key, locked = ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret")
            authority.server(key).write(*files)
            files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        case _:
            (tmp_path / "tls.key").unlink()
    with pytest.raises(BadCertificate, match=str(tmp_path)) as raised:
        async with serving(database, clock, configuration):
            pass
    assert problem in str(raised.value)


async def test_a_scrape_shows_when_the_certificates_of_the_next_connection_end(
    database: Database, authority: Authority, configuration: Configuration, tmp_path: Path
) -> None:
    certificate, key, ca = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt"

    def validity(path: Path) -> tuple[float, float]:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()

    with monitoring_socket() as (listening, port):

        async def shown(file: str) -> tuple[float, float]:
            found = await scrape(port)
            first, last = (f"tidemark_tls_not_{name}_timestamp_seconds" for name in ("before", "after"))
            return found.value(first, file=file), found.value(last, file=file)

        mutual = replace(configuration, tls_client_ca=ca)
        async with running(database, SystemClock(), register, mutual, monitoring_socket=listening):
            first = validity(certificate)
            assert (await shown("certificate"), await shown("client_ca")) == (first, validity(ca))
            # A new one is shown although no client has connected since.
            authority.server(lifetime=timedelta(days=40)).write(certificate, key)
            renewed = validity(certificate)
            assert await shown("certificate") == renewed
            assert renewed[1] - renewed[0] > 39 * 86_400
            # One that does not fit to its key would not be used: the next client gets the one before the new one.
            authority.server().write(certificate, tmp_path / "other.key")
            assert await shown("certificate") == first
            authority.server(lifetime=timedelta(days=50)).write(certificate, key)
            assert await shown("certificate") == validity(certificate)
