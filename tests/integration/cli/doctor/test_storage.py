"""`tidemark doctor` finds what is wrong with the storage: partitions, dead rows, old transaction ids, a full disk."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from cli.doctor import storage_checks
from cli.doctor.findings import Severity
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from tests.support.cli.doctor import check, execute
from tests.support.postgres import only_one_server
from tests.support.server.sharing import own_database

OK, WARNING, PROBLEM = Severity.OK, Severity.WARNING, Severity.PROBLEM


@own_database
async def test_missing_partitions_are_found(database_url: str, clock: ManualClock) -> None:
    assert (await check(database_url, "storage.event_partitions", now=clock.now)).severity is OK
    await execute(database_url, "DROP TABLE event_2026_04")
    assert (await check(database_url, "storage.event_partitions", now=clock.now)).severity is WARNING
    await execute(database_url, "DROP TABLE event_2026_03")
    found = await check(database_url, "storage.event_partitions", now=clock.now)
    assert (found.severity, "2026-03" in found.findings[0].found) == (PROBLEM, True)
    assert (await check(database_url, "storage.delivery_partitions")).severity is WARNING


@own_database
async def test_partitions_beyond_their_retention_are_found(database_url: str, clock: ManualClock) -> None:
    assert (await check(database_url, "storage.retention", now=clock.now)).severity is OK

    def years_later() -> datetime:
        return clock.now() + timedelta(days=1_000)

    found = await check(database_url, "storage.retention", now=years_later)
    assert found.severity is WARNING
    assert "TIDEMARK_RETENTION_DAYS" in found.findings[0].found


@only_one_server.counts_dead_rows
@own_database
async def test_dead_rows_and_a_table_without_autovacuum_are_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_checks, "LEAST_DEAD", 100)
    await execute(
        database_url,
        "ALTER TABLE feed SET (autovacuum_enabled = false)",
        "ALTER TABLE organization SET (autovacuum_vacuum_threshold = 1000000)",  # so that its dead rows stay
        "INSERT INTO organization (name, create_time) SELECT 'o' || n, now() FROM generate_series(1, 500) n",
        "UPDATE organization SET epoch = 1",
        "UPDATE organization SET epoch = 2",
        "SELECT pg_stat_force_next_flush()",
    )
    async with asyncio.timeout(30):
        while True:
            found = await check(database_url, "storage.dead_rows")
            texts = [one.found for one in found.findings]
            if any(one.startswith("organization has") for one in texts):
                break
            await asyncio.sleep(0.1)
    assert any("autovacuum is off for the table feed" in one for one in texts)
    assert found.severity is PROBLEM


async def test_old_transaction_ids_are_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check(database_url, "storage.transaction_ids")).severity is OK
    monkeypatch.setattr(storage_checks, "AGE_WARNING", 1)
    assert (await check(database_url, "storage.transaction_ids")).severity is WARNING


async def test_a_full_disk_of_the_embedded_server_is_found(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Configuration(data_directory=tmp_path)
    monkeypatch.setattr(storage_checks, "LEAST_FREE", 0)
    monkeypatch.setattr(storage_checks, "DISK_WARNING", 0.0)
    assert (await check(database_url, "storage.disk", settings=settings, is_embedded=True)).severity is OK
    monkeypatch.setattr(storage_checks, "LEAST_FREE", 1024**6)
    found = await check(database_url, "storage.disk", settings=settings, is_embedded=True)
    assert (found.severity, str(tmp_path) in found.findings[0].found) == (PROBLEM, True)


@own_database
async def test_an_unused_replication_slot_is_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check(database_url, "database.slots")).severity is OK
    monkeypatch.setattr("cli.doctor.database_checks.SLOT_WARNING", 0)
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    await execute(database_url, f"SELECT pg_create_physical_replication_slot('{name}', true)")
    try:
        found = await check(database_url, "database.slots")
        assert any(f"pg_drop_replication_slot('{name}')" in one.todo for one in found.findings)
    finally:
        await execute(database_url, f"SELECT pg_drop_replication_slot('{name}')")
