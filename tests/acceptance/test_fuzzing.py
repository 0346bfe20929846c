"""Bad requests, bad frames and bad bytes: the server goes on, answers others, and shows nothing of its inside.

`make fuzz COUNT=200000 SEED=7` runs it for longer, and prints what it measured.
"""

import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from proto.documents.contract import METHODS
from runtime.clock import SystemClock
from store.identity import keys
from store.postgres.database import Database
from tests.support.contract.definitions import new_alert
from tests.support.fuzzing.campaign import CLIENTS, Campaign, Canary, canary, resident
from tests.support.fuzzing.findings import Findings
from tests.support.fuzzing.messages import Good, bad_encoding
from tests.support.fuzzing.wire import bad_bytes
from tests.support.processes.programs import Program, Programs, until
from tests.support.server.certificates import Authority

COUNT = int(os.environ.get("TIDEMARK_TEST_FUZZ") or 800)  # bad requests
SEED = int(os.environ.get("TIDEMARK_TEST_SEED") or 0)
CONNECTIONS = 0.05  # connections with bad bytes for each bad request
TLS = 0.02
WARM_UP = 0.1  # of the requests, before memory is measured first: caches fill
PART = 10  # measurements of memory
# Beside usage of their organization, changes keep a distance: a few clients spend most of their time waiting.
MANY_CLIENTS = 48

pytestmark = pytest.mark.time_limit(0 if COUNT > 10_000 else 600)


@pytest.fixture
async def organizations(database_url: str) -> AsyncIterator[tuple[str, str]]:
    """The keys of the organization that sends bad requests, and of the canary's."""
    database = Database(database_url, pool_size=1)
    try:
        async with database.transaction() as connection:
            created = [await keys.create_key(connection, name, SystemClock().now()) for name in ("bad", "good")]
        yield created[0].key, created[1].key
    finally:
        await database.close()


@pytest.fixture
async def server(programs: Programs, organizations: tuple[str, str], tmp_path: Path) -> Program:
    """A server without TLS. What it stores of alerts, and so its memory, does not grow with the bad requests."""
    return await programs.serve(QUOTA_ALERTS="200")


async def test_server_survives_bad_requests_and_shows_nothing_of_its_inside(
    server: Program, organizations: tuple[str, str]
) -> None:
    findings = Findings()
    address, (bad, good) = server.address.server, organizations
    async with canary(address, good, findings) as before:
        await _sung(before)
    campaign = Campaign(address, bad, findings, SEED, MANY_CLIENTS if COUNT > 10_000 else CLIENTS)
    assert await campaign.prepare() > 100
    began, sizes = time.perf_counter(), list[int]()
    async with canary(address, good, findings) as beside:
        await campaign.messages(round(COUNT * WARM_UP))
        for _ in range(PART):
            await campaign.messages(round(COUNT * (1 - WARM_UP) / PART))
            await campaign.connections(round(COUNT * CONNECTIONS / PART))
            sizes.append(resident([server.pid]))
    seconds = time.perf_counter() - began
    async with canary(address, good, findings) as after:
        await _sung(after)
    sys.stdout.write(_report(findings, sizes, seconds, (before.p99(), beside.p99(), after.p99())))
    assert findings.problems == []
    assert complaints(server) == []
    assert server.running
    # One code alone would mean that the requests do not get as far as the code that they should test.
    assert findings.codes["OK"] > COUNT * 0.05
    assert findings.codes["INVALID_ARGUMENT"] > COUNT * 0.05


def complaints(server: Program) -> list[str]:
    """The errors in its log, without those that gRPC writes about metadata that are no ASCII."""
    found, of_grpc = list[str](), False
    for line in server.complaints():
        if "Invalid encoding on" in line:
            of_grpc = True
        elif of_grpc and line.startswith("Traceback"):
            of_grpc = False
        else:
            found.append(line)
    return found


async def _sung(bird: Canary) -> None:
    """Waits until the canary has made some calls."""
    await until(lambda: len(bird.seconds) >= 30, "the calls of the canary")


def _report(findings: Findings, sizes: list[int], seconds: float, p99: tuple[float, float, float]) -> str:
    memory = ", ".join(f"{size / 2**20:.1f}" for size in sizes)
    before, beside, after = (f"{one * 1_000:.1f}" for one in p99)
    return (
        f"\n{findings.requests} bad requests in {seconds:.0f} s, seed {SEED}: {dict(findings.codes.most_common())}"
        f"\nresident memory of the server in MiB: {memory}"
        f"\ncanary p99 in ms: {before} before, {beside} beside, {after} after\n"
    )


async def test_server_with_tls_survives_bad_bytes(
    programs: Programs, organizations: tuple[str, str], tmp_path: Path
) -> None:
    Authority().server().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    tls = await programs.serve("tls", TLS_CERTIFICATE=str(tmp_path / "tls.crt"), TLS_KEY=str(tmp_path / "tls.key"))
    findings = Findings()
    await Campaign(tls.address.server, organizations[0], findings, SEED).tls(max(40, round(COUNT * TLS)))
    assert findings.problems == []
    assert findings.requests >= 40
    assert (tls.running, complaints(tls)) == (True, [])


def test_the_same_seed_makes_the_same_bad_requests() -> None:
    good = Good(METHODS[0], new_alert("usage_exceeded"))

    def drawn() -> list[bytes]:
        draw = Random(1)
        return [bad_encoding(good, [good], draw) for _ in range(20)]

    first, second = drawn(), drawn()
    assert first == second
    assert len(set(first)) > 10
    assert bad_bytes(["/a/b"], Random(3)) == bad_bytes(["/a/b"], Random(3))
