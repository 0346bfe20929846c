"""Backup and restore with the commands of docs/deploying.md: what is lost, and how everything goes on afterwards."""

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from sqlalchemy import make_url

from cli.client.connection import Address
from generated.tidemark.v1.alert_service_pb2 import CreateAlertRequest, WatchNotificationsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.audit_service_pb2 import WatchAuditEntriesRequest
from generated.tidemark.v1.audit_service_pb2_grpc import AuditServiceStub
from generated.tidemark.v1.limit_service_pb2 import (
    CheckUsageRequest,
    ReserveUsageRequest,
    ReserveUsageResponse,
    SettleReservationRequest,
)
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub
from generated.tidemark.v1.requested_usage_pb2 import RequestedUsage
from generated.tidemark.v1.usage_pb2 import UsageEvent
from store.migrate import migrate
from tests.support.documented import blocks
from tests.support.faults.reserving import CUSTOMERS, METRIC, put_limit
from tests.support.memory import server_folder
from tests.support.notifier.receiver import Receiver
from tests.support.processes import results
from tests.support.processes.programs import DEADLINE, SETTINGS, Program, Programs, running, until
from tests.support.processes.results import ALERTS
from tests.support.processes.traffic import Client, usage
from tests.support.processes.up import Up, eventually, run
from tests.support.system_postgres import binaries, postgres_of, system_postgres
from tests.support.waiting import within
from tests.support.webhooks.endpoints import create_endpoint

PAGE = "deploying.md"
BATCHES = 8
TIMEOUT = 120.0  # seconds


def shell(script: str, folder: Path, *programs: Path, **variables: str) -> None:
    """Runs the commands of a page in a folder, with `tidemark` and the programs of other folders on the PATH."""
    path = os.pathsep.join(map(str, [Path(sys.executable).parent, *programs, os.environ["PATH"]]))
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **SETTINGS, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


class Backup(Protocol):
    """A way to back up the database at `url`. folder: for its files."""

    url: str

    def take(self, folder: Path) -> None:
        """Makes a backup. What is acknowledged later is not in it."""

    def restored(self, folder: Path) -> AbstractContextManager[str]:
        """The URL of a database that is restored from it, ready for servers."""


@dataclass
class Dump:
    """A dump into a file, restored into a new database of the same server."""

    url: str

    def take(self, folder: Path) -> None:
        """See `Backup`."""
        [command] = [one for one in blocks(PAGE, "A dump") if "pg_dump" in one]
        shell(command, folder, binaries(), TIDEMARK_DATABASE_URL=self.url)

    @contextmanager
    def restored(self, folder: Path) -> Iterator[str]:
        """See `Backup`."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE restored TEMPLATE template0 ENCODING 'UTF8'")
        url = make_url(self.url).set(database="restored").render_as_string(hide_password=False)
        [command] = [one for one in blocks(PAGE, "A dump") if "pg_restore" in one]
        shell(command, folder, binaries(), TIDEMARK_DATABASE_URL=url)
        yield url


def configuration(text: str, **values: str) -> list[str]:
    """Settings of a page for the command line of PostgreSQL, with values for their placeholders."""
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    pairs = (line.split(" = ", 1) for line in text.splitlines())
    return [f"{name}={value.strip().removeprefix(chr(39)).removesuffix(chr(39))}" for name, value in pairs]


@dataclass
class PointInTime:
    """A base backup and an archive of the write-ahead log, restored to a time on a server of its own."""

    url: str
    archive: Path
    point: str = field(default="")

    def take(self, folder: Path) -> None:
        """See `Backup`."""
        [command] = [one for one in blocks(PAGE, "A point in time") if "pg_basebackup" in one]
        shell(command, folder, binaries(), TIDEMARK_DATABASE_URL=self.url, BACKUP=str(folder / "base"))
        with psycopg.connect(self.url, autocommit=True) as connection:
            [(self.point,)] = connection.execute("SELECT clock_timestamp()::text").fetchall()

    def _archive_all(self) -> None:
        """Waits until everything so far is in the archive."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            [(name,)] = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchall()
        eventually((self.archive / name).exists)

    @contextmanager
    def restored(self, folder: Path) -> Iterator[str]:
        """See `Backup`."""
        self._archive_all()
        restore, *_ = [one for one in blocks(PAGE, "A point in time", "ini") if "recovery_target_time" in one]
        target = server_folder()
        try:
            shutil.copytree(folder / "base", target / "data")
            (target / "data").chmod(0o700)
            (target / "data" / "recovery.signal").touch()
            settings = configuration(restore, ARCHIVE=str(self.archive), POINT=self.point)
            with postgres_of(target, *settings) as url:
                with psycopg.connect(url, autocommit=True) as connection:
                    eventually(lambda: connection.execute("SELECT pg_is_in_recovery()").fetchall() == [(False,)])
                shell(blocks(PAGE, "A point in time")[-1], folder, binaries(), TIDEMARK_DATABASE_URL=url)
                yield url
        finally:
            shutil.rmtree(target)


@pytest.fixture(params=["dump", "point in time"])
def backup(request: pytest.FixtureRequest) -> Iterator[Backup]:
    """A way to back up a database on a server of the operating system, which is not migrated yet."""
    if request.param == "dump":
        with system_postgres("fsync=off") as url:
            yield Dump(url)
        return
    archive = server_folder()
    archive.chmod(0o777)
    [archiving] = [one for one in blocks(PAGE, "A point in time", "ini") if "archive_mode" in one]
    try:
        with system_postgres("fsync=off", *configuration(archiving, ARCHIVE=str(archive))) as url:
            yield PointInTime(url, archive)
    finally:
        shutil.rmtree(archive)


async def send(address: Address, name: str, now: datetime) -> Client:
    """Sends a client's batches, which are the same each time; all are acknowledged."""
    client = Client(name, address)
    await client.send(itertools.islice(usage(name, now), BATCHES))
    return client


async def watched(address: Address, number: int, token: str = "") -> tuple[set[str], str]:
    """The ids of the first `number` notifications after a token (of all, without one), and the token after them."""
    request = WatchNotificationsRequest(resume_token=token)
    if not token:
        request.start_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    found: set[str] = set()
    async with address.channel() as channel, within(f"{number} notifications on a stream", DEADLINE):
        async for answer in AlertServiceStub(channel).WatchNotifications(request):
            if answer.HasField("notification"):
                found.add(answer.notification.notification_id)
                token = answer.resume_token
                if len(found) == number:
                    return found, token
    raise AssertionError("the stream ended")


async def create_alert(address: Address, name: str) -> str:
    """Creates an alert on a customer without usage; returns its id."""
    request = CreateAlertRequest()
    request.alert.display_name = name
    request.alert.scope.customer.customer_id = "nothing-happens-here"
    request.alert.spend_threshold_reached.currency = "USD"
    request.alert.thresholds.add(value="1")
    async with address.channel() as channel:
        return (await AlertServiceStub(channel).CreateAlert(request, timeout=DEADLINE)).alert.alert_id


async def audited(address: Address, last: str, token: str = "") -> tuple[list[str], str]:
    """The resources of the audit entries after a token (of all, without one) up to `last`, and a new token."""
    request = WatchAuditEntriesRequest(resume_token=token)
    if not token:
        request.start_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    found: list[str] = []
    async with address.channel() as channel, within(f"the audit entry of {last} on a stream", DEADLINE):
        async for answer in AuditServiceStub(channel).WatchAuditEntries(request):
            if answer.HasField("entry"):
                found.append(answer.entry.resource_id)
                if found[-1] == last:
                    return found, answer.resume_token
    raise AssertionError("the stream ended")


async def reserved(address: Address, reservation_id: str, now: datetime, used: str = "") -> ReserveUsageResponse:
    """Reserves 100 tokens for a day, and settles that with what was used, if anything was."""
    request = ReserveUsageRequest(reservation_id=reservation_id)
    request.ttl.seconds = 86_400
    request.usage.CopyFrom(RequestedUsage(customer_id=CUSTOMERS[0], metric_id=METRIC, quantity="100"))
    request.usage.event_time.FromDatetime(now)
    async with address.channel() as channel:
        limits = LimitServiceStub(channel)
        answer = await limits.ReserveUsage(request, timeout=DEADLINE)
        if used:
            settle = SettleReservationRequest(customer_id=CUSTOMERS[0], reservation_id=reservation_id, quantity=used)
            await limits.SettleReservation(settle, timeout=DEADLINE)
    return answer


def settlement(reservation_id: str, quantity: str, now: datetime) -> UsageEvent:
    """The event of a settlement."""
    event = UsageEvent(event_id=reservation_id, customer_id=CUSTOMERS[0], metric_id=METRIC, quantity=quantity)
    event.event_time.FromDatetime(now)
    return event


async def of_limit(address: Address) -> tuple[str, str]:
    """Counted and held of the limit above those that reserve."""
    request = CheckUsageRequest()
    request.usage.CopyFrom(RequestedUsage(customer_id=CUSTOMERS[0], metric_id=METRIC, quantity="1"))
    async with address.channel() as channel:
        limit = (await LimitServiceStub(channel).CheckUsage(request, timeout=DEADLINE)).decision.limit
    return limit.counted, limit.held


async def ids(url: str) -> set[str]:
    """The ids of all notifications."""
    return set(await results.notifications(url))


async def test_restore_has_what_was_acknowledged_before_the_backup_and_everything_goes_on(
    backup: Backup, receiver: Receiver, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    migrate(backup.url)
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    async with running(backup.url, tmp_path / "before") as programs:
        server = await programs.serve()
        await results.create(server.address, *ALERTS)
        async with server.address.channel() as channel:
            secret = await create_endpoint(channel, receiver.url)
        kept = await send(server.address, "kept", now)
        await put_limit(server.address)
        await reserved(server.address, "used", now, "50")
        await reserved(server.address, "open", now)
        await reserved(server.address, "settled-later", now)
        of_backup = await ids(backup.url)
        await watched(server.address, len(of_backup))
        await asyncio.to_thread(backup.take, tmp_path)
        # Sent after the backup was made: the restored database does not know it.
        await programs.notify()
        lost = await send(server.address, "lost", now)
        await reserved(server.address, "later", now)
        await reserved(server.address, "settled-later", now, "25")
        assert await of_limit(server.address) == ("75", "200")
        all_ids = await ids(backup.url)
        assert of_backup < all_ids
        _, token = await watched(server.address, len(all_ids))
        changes = [await create_alert(server.address, f"lost {number}") for number in range(3)]
        _, audit_token = await audited(server.address, changes[-1])
        await until(lambda: all_ids <= set(receiver.ids()), "the webhooks before the restore")

    arrived = len(receiver.arrivals)
    with backup.restored(tmp_path) as url:
        assert (await results.stored(url)).events == kept.accepted + 1
        assert await ids(url) == of_backup
        async with running(url, tmp_path / "after") as programs:
            server = await resume(programs, (kept, lost), now, token)
            # What was reserved before the backup is held, and is answered as before; the rest is reserved anew. A
            # settlement after it is lost: its reservation is open, so that it counts when it is sent again.
            assert await of_limit(server.address) == ("50", "200")
            repeated = [await reserved(server.address, name, now) for name in ("open", "later")]
            assert [one.replayed for one in repeated] == [True, False]
            await reserved(server.address, "open", now, "60")
            await reserved(server.address, "settled-later", now, "25")
            assert await of_limit(server.address) == ("135", "100")
            change = await create_alert(server.address, "after the restore")
            # Entries that had no number in the backup come again.
            entries, _ = await audited(server.address, change, audit_token)
            assert not set(entries) & set(changes)
            written = await results.notifications(url)
            await until(lambda: written.keys() <= set(receiver.ids()[arrived:]), "the webhooks after the restore")
        results.check_arrivals(receiver.arrivals[arrived:], secret, written)
        # A webhook that was pending in the backup has the same id and content as before the restore.
        before = {arrival.webhook_id: arrival.body for arrival in receiver.arrivals[:arrived]}
        again = {arrival.webhook_id: arrival.body for arrival in receiver.arrivals[arrived:]}
        assert {one: again[one] for one in of_backup} == {one: before[one] for one in of_backup}
        # What is evaluated again has an id that receivers know.
        assert (again.keys() - of_backup) & (before.keys() - of_backup)


async def resume(programs: Programs, clients: tuple[Client, Client], now: datetime, token: str) -> Program:
    """Callers send again what they have, and a subscriber goes on with a token that is newer than the backup.

    Returns the server.
    """
    before = await ids(programs.url)
    server, _ = await asyncio.gather(programs.serve("server"), programs.notify("notifier"))
    kept, lost = [await send(server.address, client.name, now) for client in clients]
    assert (kept.accepted, lost.accepted) == (0, lost.acknowledged)
    sent: list[UsageEvent] = [*kept.sent, *lost.sent, settlement("used", "50", now)]
    assert await results.stored(programs.url) == results.expected(sent, *ALERTS)
    written = await ids(programs.url) - before
    assert written
    found, _ = await watched(server.address, len(written), token)
    assert found == written
    return server


EVENT = (
    '{{"customer_id": "acme", "metric_id": "calls", "quantity": 1, "cost": "{cost}", "currency": "USD",'
    ' "event_id": "{event_id}", "event_time": "{time}"}}\n'
)
ALERT = (
    '{"alert": {"display_name": "Spend", "scope": {"all_customers": {}},'
    ' "spend_threshold_reached": {"currency": "USD"}, "thresholds": [{"value": "10"}]}}'
)


def test_embedded_database_is_restored_into_another_directory_and_a_newer_version(tmp_path: Path) -> None:
    save, load = blocks(PAGE, "The embedded server")
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    usage_file = tmp_path / "usage.ndjson"
    time = datetime.now(UTC).isoformat()
    usage_file.write_text("".join(EVENT.format(cost=6, event_id=f"e{number}", time=time) for number in range(3)))
    up = Up(old, PGSERVER_POSTGRES_VERSION="16")
    try:
        up.call("AlertService/CreateAlert", ALERT)
        assert up.run("replay", str(usage_file)).returncode == 0
        assert re.search(r"in alarm +acme", up.run("watch", "--once").stdout)
        shell(save, tmp_path, TIDEMARK_DATA_DIRECTORY=str(old / "data"))
    finally:
        up.stop()
    shell(load, tmp_path, TIDEMARK_DATA_DIRECTORY=str(new / "data"))
    assert (new / "data" / "secret.key").read_bytes() == (old / "data" / "secret.key").read_bytes()
    up = Up(new)
    try:
        assert re.search(r"in alarm +acme", up.run("watch", "--once").stdout)
        again = up.run("replay", str(usage_file))
        assert re.search(r"\b0 +accepted", again.stdout)
        assert re.search(r"\b3 +duplicates", again.stdout)
    finally:
        up.stop()


def test_program_of_the_embedded_server_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    found = run(tmp_path, "embedded", "psql", "--tuples-only", "--command", "SELECT 6 * 7")
    assert (found.returncode, found.stdout.strip()) == (0, "42"), found.stderr
    assert run(tmp_path, "embedded", "psql", "--command", "SELECT 1 / 0").returncode == 1
    assert "cannot be run" in run(tmp_path, "embedded", "no-such-program").stderr
    refused = run(tmp_path, "embedded", "psql", TIDEMARK_DATABASE_URL="postgresql://127.0.0.1/database")
    assert (refused.returncode, "of your own" in refused.stderr) == (2, True)
