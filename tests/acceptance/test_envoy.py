"""Callers behind a real Envoy with the configuration of deploy/: their certificate is their identity."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from cli.client.connection import Address, ClientTls
from generated.tidemark.v1.alert_service_pb2 import ListAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from tests.support.deployment import ENVOY
from tests.support.processes.envoy import envoy, free_ports
from tests.support.processes.programs import DEADLINE, Programs
from tests.support.processes.traffic import progress, streaming
from tests.support.processes.up import run
from tests.support.server.certificates import HOST, Authority
from tests.support.waiting import within

GATEWAY = "spiffe://acme.test/ns/mesh/sa/gateway"
CART, STRANGER = "spiffe://acme.test/ns/shop/sa/cart", "spiffe://acme.test/ns/other/sa/job"
FORWARDED = "x-forwarded-client-cert"


@asynccontextmanager
async def gateway(folder: Path, authority: Authority, upstream: int) -> AsyncIterator[int]:
    """Envoy in front of a server on a port of this machine; yields its own port."""
    port, admin = free_ports(2)
    authority.server().write(folder / "server.crt", folder / "server.key")
    authority.client(GATEWAY).write(folder / "gateway.crt", folder / "gateway.key")
    for name in ("callers-ca", "servers-ca"):
        (folder / f"{name}.crt").write_bytes(authority.pem)
    documented = (
        ("port_value: 9901", f"port_value: {admin}"),
        ("address: 0.0.0.0, port_value: 8443", f"address: 127.0.0.1, port_value: {port}"),
        ("address: tidemark-pods, port_value: 50051", f"address: {HOST}, port_value: {upstream}"),
        ("exact: tidemark", f"exact: {HOST}"),
    )
    async with envoy(folder, ENVOY, documented):
        yield port


def caller(authority: Authority, port: int, identity: str) -> Address:
    """The address of Envoy, called with a certificate of that identity."""
    signed = authority.client(identity)
    return Address(f"{HOST}:{port}", tls=ClientTls(authority.pem, signed.certificate, signed.key))


async def list_alerts(address: Address, metadata: Sequence[tuple[str, str]] = ()) -> grpc.StatusCode:
    """The status of a call."""
    async with address.channel() as channel, within("an answer of Envoy", DEADLINE):
        while True:
            call = AlertServiceStub(channel).ListAlerts(
                ListAlertsRequest(), metadata=tuple(metadata), timeout=DEADLINE
            )
            # Envoy does not listen yet, or has not found the server healthy yet.
            if (code := await call.code()) is not grpc.StatusCode.UNAVAILABLE:
                return code
            await asyncio.sleep(0.1)


@pytest.fixture
async def server_with_identities(programs: Programs, tmp_path: Path) -> tuple[Authority, int]:
    """A server that believes Envoy's header, and knows CART."""
    authority = Authority()
    authority.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    roles = ("--role", "reader", "--role", "ingester")
    made = await asyncio.to_thread(
        run,
        tmp_path,
        *("keys", "create", "--organization", "acme", *roles, "--identity", CART),
        TIDEMARK_DATABASE_URL=programs.url,
    )
    assert made.returncode == 0, made.stderr
    server = await programs.serve(
        TLS_CERTIFICATE=str(tmp_path / "tls.crt"),
        TLS_KEY=str(tmp_path / "tls.key"),
        TLS_CLIENT_CA=str(tmp_path / "ca.crt"),
        TRUSTED_PROXIES=GATEWAY,
    )
    return authority, int(server.address.server.rpartition(":")[2])


async def test_certificate_of_a_caller_is_its_identity_behind_envoy(
    server_with_identities: tuple[Authority, int], tmp_path: Path
) -> None:
    authority, upstream = server_with_identities
    (tmp_path / "envoy").mkdir()
    async with gateway(tmp_path / "envoy", authority, upstream) as port:
        known, unknown = caller(authority, port, CART), caller(authority, port, STRANGER)
        assert await list_alerts(known) is grpc.StatusCode.OK
        assert await list_alerts(unknown) is grpc.StatusCode.UNAUTHENTICATED
        # A header of the caller's own is thrown away.
        forged = [(FORWARDED, f"URI={CART}")]
        assert await list_alerts(unknown, forged) is grpc.StatusCode.UNAUTHENTICATED
        assert await list_alerts(known, [(FORWARDED, f"URI={STRANGER}")]) is grpc.StatusCode.OK
        async with streaming(known, 2, datetime.now(UTC)) as clients:
            await progress(clients, 4)
        assert [client.interruptions for client in clients] == [[], []]
