"""The tests of clients/node/test against a real server, and what takes more than one program."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.clients.node import CLIENT, program, run_node, variables_of
from tests.support.clients.server import Server, server_with_organization
from tests.support.clients.usage import counted, watched
from tests.support.databases import NOON
from tests.support.server.certificates import HOST, Authority
from tests.support.server.running import running
from tests.support.server.sharing import StandingClock

pytestmark = pytest.mark.usefixtures("node")

FILES = sorted((CLIENT / "test").glob("*.test.js"))


async def test_tests_of_the_client_pass(server: Server) -> None:
    output = await run_node("--test-reporter=spec", "test/all.js", **variables_of(server))
    assert "fail 0" in output, output
    assert "skipped 0" in output, output
    assert len(FILES) == 7


async def test_types_are_right_in_sources_tests_and_examples() -> None:
    await run_node("node_modules/typescript/bin/tsc", "--noEmit")


async def test_server_that_drains_and_one_that_follows_it_count_each_event_once(shared_pool: Database) -> None:
    clock = StandingClock(NOON)
    async with running(shared_pool, clock) as first:
        server = await server_with_organization(first, shared_pool)
        async with program("test/programs/writes.js", **variables_of(server)) as writer:
            await writer.says("100 are sent")
            first.shutdown.request()
            await writer.tell("more")
            await writer.says("200 are sent")
            await first.stopped
            configuration = Configuration(listen_port=first.port, propagation_delay=0.0)
            async with running(shared_pool, clock, configuration=configuration):
                await writer.tell("close")
                await writer.says("acknowledged: 200, pending: 0")
                assert await writer.ended() == 0
                async with watched(server) as watcher:
                    found = Decimal(0)
                    while found < 200:  # the new alert is evaluated on what is stored
                        found = await counted(watcher)
                    assert found == 200


async def test_tls_with_authorities_and_a_client_certificate(shared_pool: Database, tmp_path: Path) -> None:
    authority = Authority()
    authority.server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    signed = authority.client("spiffe://acme.test/ns/shop/sa/cart")
    (tmp_path / "client.crt").write_bytes(signed.certificate)
    (tmp_path / "client.key").write_bytes(signed.key)
    configuration = Configuration(
        listen_host=HOST,
        listen_port=0,
        propagation_delay=0.0,
        tls_certificate=tmp_path / "tls.crt",
        tls_key=tmp_path / "tls.key",
        tls_client_ca=tmp_path / "ca.crt",
    )
    async with running(shared_pool, StandingClock(NOON), configuration=configuration) as server:
        output = await run_node("test/programs/tls.js", f"{HOST}:{server.port}", tmp_path)
    known, stranger = output.splitlines()
    assert json.loads(known)["requestId"]  # it was refused by the service: the certificate has no identity there
    assert json.loads(stranger)["name"] == "UnavailableError"
