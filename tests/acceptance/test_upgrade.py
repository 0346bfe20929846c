"""An upgrade under load: the version before and this one, side by side on one database, and nothing is lost.

Also no reservation: what one version holds, the other one counts against the limit, and gives back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from store.migrate import head, migrate
from tests.support.databases import Template
from tests.support.faults.reserving import Reserver, put_limit, reserving, tally_reservations
from tests.support.notifier.receiver import Receiver
from tests.support.processes import results
from tests.support.processes.earlier_version import EarlierVersion
from tests.support.processes.outage import everything_arrived
from tests.support.processes.programs import SETTINGS, Programs, running, session
from tests.support.processes.results import ALERTS, BY_LABEL, SEATS
from tests.support.processes.traffic import BATCH, progress, streaming
from tests.support.webhooks.endpoints import create_endpoint

CLIENTS = 2  # of each server
BATCHES = 4  # of each client, in each state of the upgrade


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> EarlierVersion:
    """The version before this one."""
    return EarlierVersion(tmp_path_factory.mktemp("earlier"))


@pytest.fixture
async def old_url(template: Template, earlier: EarlierVersion) -> AsyncIterator[str]:
    """A database that the version before has migrated."""
    with template.lent_database(months=False) as url:
        async with session(url) as connection:
            await connection.execute("DROP SCHEMA public CASCADE")
            await connection.execute("CREATE SCHEMA public")
        await asyncio.to_thread(earlier.run, "migrate", settings={**SETTINGS, "TIDEMARK_DATABASE_URL": url})
        yield url


async def revision(url: str) -> str:
    """The revision of the schema."""
    async with session(url) as connection:
        [[found]] = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchall()
    return str(found)


def of_version(programs: Programs, earlier: EarlierVersion | None) -> Programs:
    """The same programs; what they start from now on is of that version, or of this one."""
    programs.variables = {} if earlier is None else dict(earlier.variables)
    return programs


def test_processes_of_the_version_before_run_its_own_files(earlier: EarlierVersion) -> None:
    for module in ("cli.main", "server.process", "store.migrate"):
        assert earlier.file_of(module).startswith(earlier.variables["PYTHONPATH"])


async def test_upgrade_under_load_loses_nothing_and_notifies_once(
    old_url: str, earlier: EarlierVersion, receiver: Receiver, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    async with contextlib.AsyncExitStack() as exits:
        programs = await exits.enter_async_context(running(old_url, tmp_path))
        before = of_version(programs, earlier)
        old_server, old_notifier = await asyncio.gather(before.serve("old-server"), before.notify("old-notifier"))
        await results.create(old_server.address, *ALERTS, SEATS)
        async with old_server.address.channel() as channel:
            secret = await create_endpoint(channel, receiver.url)
        assert await revision(old_url) == earlier.revision

        await put_limit(old_server.address, of_batches=True)
        reservers = [Reserver("old", old_server.address, now)]
        async with streaming(old_server.address, CLIENTS, now) as old_clients, reserving(reservers):
            await progress(old_clients, BATCHES)
            await asyncio.to_thread(migrate, old_url)
            assert await revision(old_url) == head()
            await progress(old_clients, BATCHES)

            after = of_version(programs, None)
            new_server, new_notifier = await asyncio.gather(after.serve("server"), after.notify("notifier"))
            beside = [Reserver("new", new_server.address, now)]
            async with streaming(new_server.address, CLIENTS, now, "new") as new_clients, reserving(beside):
                await progress([*old_clients, *new_clients], BATCHES)
                # What one version creates, the other one evaluates.
                await results.create(old_server.address, BY_LABEL[0])
                await results.create(new_server.address, BY_LABEL[1])
                await progress([*old_clients, *new_clients], BATCHES)

                assert [await old_server.stop(), await old_notifier.stop()] == [0, 0]
                replacement = await after.serve("replacement", LISTEN=old_server.address.server)
                await progress([*old_clients, *new_clients], BATCHES)
        await results.evaluated(new_server.address)

        clients = [*old_clients, *new_clients]
        sent = [event for client in clients for event in client.sent]
        reservers += beside
        reserved = await tally_reservations(old_url, reservers)
        assert reserved.reserved
        sent += [event for one in reservers for event in one.settled]
        found = await results.stored(old_url)
        assert found == results.expected(sent, *ALERTS, SEATS, *BY_LABEL[:2])
        settled = sum(len(one.settled) for one in reservers)
        assert found.events == len(sent) == sum(one.acknowledged for one in clients) + settled
        assert found.events == len({event.event_id for event in sent})
        assert found.events >= 4 * CLIENTS * BATCHES * BATCH
        await everything_arrived(old_url, receiver, secret)
        assert [await one.stop() for one in (new_server, replacement, new_notifier)] == [0, 0, 0]
        everybody = (old_server, old_notifier, new_server, replacement, new_notifier)
        assert [program.complaints() for program in everybody] == [[]] * len(everybody)
