"""The rows of the part: each measures one behaviour and returns its figures."""

import asyncio
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable

import psycopg

from bench.mesh.reads import Reads
from bench.mesh.servers import Certificates, Server, plain, secured
from bench.mesh.streams import Streams
from bench.support import load, memory
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.full_speed import Send
from bench.support.goals import Figure, Goal
from bench.support.load import DENSE, Load
from bench.support.sending import NotCounted
from bench.support.stack import PostgreSQL

ROUNDS = 4  # of both servers in turn
READ_ROUNDS = 9
READ_SECONDS = 4.0  # of one round
STREAMS = 100
IDLE_STREAMS = 10_000
BUSY_SECONDS = 2.0  # before the server is stopped, and before and after the certificate is renewed
PATIENCE = 30.0  # seconds for a new certificate


async def reads(postgresql: PostgreSQL) -> list[Figure]:
    """GetAlert, 200 a second: a server with TLS, key and metrics beside a plain one.

    The ratio is the median of the rounds': one pause of the machine decides a p99 of all rounds together.
    """
    certificates = Certificates("bench-reads")
    took: dict[str, list[float]] = {"plain": [], "secured": []}
    ratios = []
    async with (
        plain(postgresql, "mesh_reads_plain") as bare,
        secured(postgresql, "mesh_reads", certificates) as guarded,
    ):
        with Client() as client:
            for number in range(READ_ROUNDS + 1):  # the first warms both up
                p99 = {}
                for name, server in (("plain", bare), ("secured", guarded)):
                    run = await client.prepare(Reads(server.access, READ_SECONDS, number))
                    seconds = await run()
                    p99[name] = milliseconds(seconds, 0.99)
                    took[name] += seconds if number else []
                if number:
                    ratios.append(p99["secured"] / p99["plain"])
    figures = [
        Figure("reads", f"GetAlert at 200/s, {name}, {share:.0%} below", milliseconds(took[name], share), "ms")
        for name in took
        for share in (0.5, 0.99)
    ]
    details = {"ratios_of_rounds": [round(one, 2) for one in ratios]}
    return [
        *figures,
        Figure("reads", "p99 secured ÷ plain", statistics.median(ratios), "", Goal(1.3, at_most=True), details),
    ]


async def ingest(postgresql: PostgreSQL) -> list[Figure]:
    """Dense usage at full speed: a server with TLS, key and metrics ÷ a plain one."""
    certificates = Certificates("bench-ingest")
    rates: dict[str, list[float]] = {"plain": [], "secured": []}
    async with (
        plain(postgresql, "mesh_ingest_plain") as bare,
        secured(postgresql, "mesh_ingest", certificates) as guarded,
    ):
        with Client() as client:
            for number in range(ROUNDS + 1):
                for name, server in (("plain", bare), ("secured", guarded)):
                    rate = await _rate(client, server, f"round-{number}")
                    rates[name] += [rate] if number else []
    ratios = [after / before for before, after in zip(rates["plain"], rates["secured"], strict=True)]
    details = {"ratios_of_rounds": [round(one, 3) for one in ratios]}
    return [
        Figure("ingest", "events a second, plain", statistics.median(rates["plain"]), "/s"),
        Figure("ingest", "events a second, secured", statistics.median(rates["secured"]), "/s"),
        Figure("ingest", "secured ÷ plain", statistics.median(ratios), "", Goal(0.95), details),
    ]


async def _rate(client: Client, server: Server, name: str) -> float:
    usage = Load(name, DENSE.gauges, DENSE.events, load.now())
    sent = await (await client.prepare(Send(server.access, usage, usage.gauges)))()
    if sent.accepted != usage.events:
        raise NotCounted(f"{sent.accepted} events were accepted, {usage.events} were sent")
    return usage.events / sent.seconds


async def drain(postgresql: PostgreSQL) -> list[Figure]:
    """SIGTERM while 100 streams are busy: when the process ends, and which acknowledged events are not stored."""
    async with secured(postgresql, "mesh_drain", Certificates("bench-drain")) as server:
        with Client() as client:
            running = asyncio.ensure_future((await client.prepare(Streams(server.access, STREAMS, busy=True)))())
            await asyncio.sleep(BUSY_SECONDS)
            started = time.perf_counter()
            code = await server.program.stop()
            seconds = time.perf_counter() - started
            kept = await running
        lost = len(kept.acknowledged) - _stored(server.url)
    details = {"exit_code": code, "ended": dict(kept.ended), "acknowledged": len(kept.acknowledged)}
    return [
        Figure(
            "drain", f"end of the process after SIGTERM, {STREAMS} open streams", seconds, "s", Goal(2, at_most=True)
        ),
        Figure("drain", "acknowledged events that are not stored", lost, "", Goal(0, at_most=True), details),
        Figure("drain", "streams that did not end with OK", STREAMS - kept.ended["OK"], "", Goal(0, at_most=True)),
    ]


def _stored(url: str) -> int:
    """The number of events of busy streams that are stored."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM event WHERE event_id LIKE 'kept-%'").fetchone()
    assert row is not None
    return int(row[0])


async def idle(postgresql: PostgreSQL) -> list[Figure]:
    """Memory of a server with 10,000 idle streams."""
    settings = {"TIDEMARK_ORGANIZATION_STREAMS": str(2 * IDLE_STREAMS)}
    async with secured(postgresql, "mesh_idle", Certificates("bench-idle"), settings) as server:
        before = memory.of(server.program.pid)
        with Client() as client:
            await client.prepare(Streams(server.access, IDLE_STREAMS, busy=False))
            after = memory.of(server.program.pid)
    assert before is not None
    assert after is not None
    megabytes = after.resident / 1e6
    each = (after.resident - before.resident) / IDLE_STREAMS / 1024
    return [
        Figure("idle", f"memory with {IDLE_STREAMS:,} idle streams", megabytes, "MB", Goal(600, at_most=True)),
        Figure("idle", "memory of one", each, "KiB"),
    ]


async def rotation(postgresql: PostgreSQL) -> list[Figure]:
    """A new certificate while 100 streams are busy: when new connections get it, and which streams ended."""
    certificates = Certificates("bench-rotation")
    async with secured(postgresql, "mesh_rotation", certificates) as server:
        host, _, port = server.access.server.rpartition(":")
        with Client() as client:
            running = asyncio.ensure_future((await client.prepare(Streams(server.access, STREAMS, busy=True)))())
            await asyncio.sleep(BUSY_SECONDS)
            before = await _certificate(host, int(port))
            certificates.renew()
            started = time.perf_counter()
            async with asyncio.timeout(PATIENCE):
                while await _certificate(host, int(port)) == before:  # noqa: ASYNC110 (another process reads it)
                    await asyncio.sleep(0.1)
            seconds = time.perf_counter() - started
            await asyncio.sleep(BUSY_SECONDS)
            client.stop()
            kept = await running
    details = {"ended": dict(kept.ended), "acknowledged": len(kept.acknowledged)}
    return [
        Figure("rotation", "new certificate in use after", seconds, "s"),
        Figure("rotation", "streams that ended", kept.ended.total(), "", Goal(0, at_most=True), details),
    ]


async def _certificate(host: str, port: int) -> str:
    """The certificate that a new connection gets."""
    return await asyncio.to_thread(ssl.get_server_certificate, (host, port))


ROWS: dict[str, Callable[[PostgreSQL], Awaitable[list[Figure]]]] = {
    "reads": reads,
    "ingest": ingest,
    "drain": drain,
    "idle": idle,
    "rotation": rotation,
}
