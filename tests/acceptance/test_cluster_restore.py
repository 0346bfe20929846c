"""A cluster that is restored from backups of its nodes, taken while usage was written: exact then, and afterwards.

The steps are those of "Backup of a cluster" in docs/scaling.md.
"""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.client.connection import Address
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.notifier.receiver import Receiver
from tests.support.postgres.cluster_backup import backup_of
from tests.support.postgres.nodes import workers
from tests.support.processes import results
from tests.support.processes.following import followed, following
from tests.support.processes.programs import running, session, until
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import BATCH, Client, progress, streaming, usage
from tests.support.processes.up import run
from tests.support.webhooks.endpoints import create_endpoint

pytestmark = [
    pytest.mark.skipif(
        not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
    ),
    pytest.mark.time_limit(240),
]

POINT = "before the upgrade"


async def send_again(address: Address, clients: Sequence[Client], now: datetime) -> int:
    """Sends all that these clients have sent; returns how many events were not there."""

    async def of_one(before: Client) -> int:
        client = Client(before.name, address)
        await client.send(itertools.islice(usage(client.name, now), len(before.sent) // BATCH))
        return client.accepted

    return sum(await asyncio.gather(*map(of_one, clients)))


async def is_exact(url: str, events: Sequence[UsageEvent]) -> None:
    assert await results.stored(url) == results.expected(events, *ALERTS, SEATS)
    assert await results.stored_states(url) == results.expected_states(events, *ALERTS, SEATS)


async def stored_ids(url: str) -> set[str]:
    async with session(url) as connection:
        return {str(one) for (one,) in await (await connection.execute("SELECT event_id FROM event")).fetchall()}


async def test_restored_cluster_is_exact_at_the_point_and_when_all_is_sent_again(
    database_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    async with backup_of(database_url, workers()) as backup:
        async with running(database_url, tmp_path / "before") as programs:
            server, _ = await asyncio.gather(programs.serve(), programs.notify())
            await results.create(server.address, *ALERTS, SEATS)
            async with server.address.channel() as channel:
                secret = await create_endpoint(channel, receiver.url)
            async with streaming(server.address, 3, now) as clients:
                await progress(clients, 5)
                await backup.take()
                await progress(clients, 5)
                await asyncio.to_thread(backup.point, POINT)
                await progress(clients, 5)
        sent = [event for client in clients for event in client.sent]
        arrived = len(receiver.arrivals)
        results.check_arrivals(receiver.arrivals, secret, await results.notifications(database_url))
        async with backup.restored(POINT) as url:
            for command in ("migrate", "restored"):
                finished = await asyncio.to_thread(run, tmp_path, command, TIDEMARK_DATABASE_URL=url)
                assert finished.returncode == 0, finished.stderr
            there = await stored_ids(url)
            known = [event for event in sent if event.event_id in there]
            assert 0 < len(known) == len(there) < len(sent)
            await is_exact(url, known)
            of_point = await results.notifications(url)
            async with running(url, tmp_path / "after") as programs:
                server, _ = await asyncio.gather(programs.serve(), programs.notify())
                async with following(server.address, since=now) as feed:
                    assert await send_again(server.address, clients, now) == len(sent) - len(known)
                    await is_exact(url, sent)
                    written = await results.notifications(url)
                    await followed(feed, written)
                await until(
                    lambda: (
                        written.keys() <= set(receiver.ids())
                        and written.keys() - of_point.keys() <= set(receiver.ids()[arrived:])
                    ),
                    "the webhooks after the restore",
                )
            results.check_arrivals(receiver.arrivals[arrived:], secret, written)
