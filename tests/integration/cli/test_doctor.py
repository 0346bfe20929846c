"""`tidemark doctor`: each check finds what is wrong, provoked for real, and finds nothing otherwise."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from cryptography import x509
from sqlalchemy import text

from cli.client.connection import Address
from cli.doctor import storage_checks
from cli.doctor.checks import CHECKS
from cli.doctor.examination import TOTAL_SECONDS, CheckResult, exit_code, run_checks
from cli.doctor.findings import Check, Examined, Finding, NotChecked, Severity
from cli.main import tidemark
from runtime.clock import ManualClock, SystemClock
from runtime.configuration import Configuration
from runtime.quotas import QuotaKind
from store.diagnosis.session import opened
from store.identity import keys
from store.identity.keys import KeySettings
from store.postgres.database import Database
from tests.support.cli.doctor import check
from tests.support.notifier.house import House
from tests.support.server.certificates import Authority
from tests.support.server.running import running
from tests.support.server.sharing import own_database
from tests.support.system_postgres import system_postgres
from tests.support.waiting import within

OK, WARNING, PROBLEM, NOT_CHECKED = Severity.OK, Severity.WARNING, Severity.PROBLEM, Severity.NOT_CHECKED


async def execute(url: str, *statements: str) -> None:
    """Executes statements, each in its own transaction."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


@asynccontextmanager
async def open_transaction(url: str, *statements: str) -> AsyncIterator[int]:
    """A transaction that stays open within the block; its process id."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for statement in statements:
            await connection.execute(statement.encode())
        yield connection.info.backend_pid


async def until(url: str, check_id: str, severity: Severity) -> CheckResult:
    """Repeats a check until it has that severity."""
    async with within(f"{check_id} is {severity}"):
        while (found := await check(url, check_id)).severity is not severity:  # noqa: ASYNC110 (the database decides)
            await asyncio.sleep(0.05)
        return found


async def test_every_check_ends_in_time_on_a_new_database(database_url: str) -> None:
    async with opened(database_url) as connection:
        examined = Examined(
            Configuration(database_url=database_url), database_url, connection, SystemClock().now, False
        )
        results = await run_checks(examined, CHECKS, check_seconds=30.0, total_seconds=120.0)
    assert [one.check_id for one in results] == [one.check_id for one in CHECKS]
    assert {one.check_id: one.findings for one in results if one.severity is NOT_CHECKED} == {}


@own_database
async def test_pending_and_newer_migrations_are_found(database_url: str) -> None:
    assert (await check(database_url, "schema.revision")).severity is OK
    await execute(database_url, "UPDATE alembic_version SET version_num = '0030'")
    pending = await check(database_url, "schema.revision")
    assert pending.severity is PROBLEM
    assert pending.findings[0].todo == "tidemark migrate"
    await execute(
        database_url,
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE schema_compatibility SET oldest_revision = '9990'",
    )
    newer = await check(database_url, "schema.revision")
    assert newer.severity is PROBLEM
    assert "9999" in newer.findings[0].found
    await execute(database_url, "UPDATE schema_compatibility SET oldest_revision = '0030'")
    assert (await check(database_url, "schema.revision")).severity is OK


@own_database
async def test_a_check_of_a_table_that_does_not_exist_is_reported_as_not_checked(database_url: str) -> None:
    await execute(database_url, "DROP TABLE outbox, alembic_version")
    found = await check(database_url, "work.outbox")
    assert found.severity is NOT_CHECKED
    assert 'relation "outbox" does not exist' in found.findings[0].found
    assert "tidemark migrate" in found.findings[0].todo
    assert "the schema is at none" in (await check(database_url, "schema.revision")).findings[0].found


async def test_a_clock_that_is_off_is_found(database_url: str) -> None:
    assert (await check(database_url, "database.clock")).severity is OK
    for skew, severity in ((timedelta(seconds=-10), WARNING), (timedelta(hours=1), PROBLEM)):

        def skewed(skew: timedelta = skew) -> datetime:
            return datetime.now(UTC) + skew

        found = await check(database_url, "database.clock", now=skewed)
        assert found.severity is severity
        assert "timedatectl" in found.findings[0].todo


@own_database
async def test_a_read_only_database_is_found(database_url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    await execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    found = await check(database_url, "database.writable")
    assert found.severity is PROBLEM
    assert "RESET default_transaction_read_only" in found.findings[0].todo
    found = await check(database_url, "database.pooler")
    assert (found.severity, "pg_monitor" in found.findings[0].todo) == (NOT_CHECKED, False)


async def test_a_long_transaction_and_what_waits_for_it_are_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.doctor.activity_checks.LONG_TRANSACTION", timedelta(0))
    monkeypatch.setattr("cli.doctor.activity_checks.LONG_WAIT", timedelta(0))
    monkeypatch.setattr("cli.doctor.activity_checks.LONG_STATEMENT", timedelta(0))
    lock = "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"
    async with open_transaction(database_url, lock) as pid:
        found = await check(database_url, "activity.transactions")
        assert found.severity is WARNING
        assert f"SELECT pg_terminate_backend({pid});" in [one.todo for one in found.findings]
        waiting = asyncio.create_task(execute(database_url, "SELECT FROM outbox"))
        waits = await until(database_url, "activity.waits", WARNING)
        assert f"pg_terminate_backend({pid})" in waits.findings[0].todo
        assert "outbox" in waits.findings[0].found
        statements = await check(database_url, "activity.running")
        assert "SELECT FROM outbox" in statements.findings[0].found
    await waiting


async def test_slow_statements_need_the_extension(database_url: str) -> None:
    found = await check(database_url, "activity.slow")
    assert found.severity is OK
    assert "not installed" in found.findings[0].found


async def test_a_check_that_waits_too_long_is_reported_and_the_others_go_on(database_url: str) -> None:
    async def fails(_: Examined) -> list[Finding]:
        raise NotChecked("it is dark")

    async def sleeps(_: Examined) -> list[Finding]:
        await asyncio.sleep(60)
        return []

    work = [one for one in CHECKS if one.check_id in ("work.outbox", "work.heartbeat")]
    checks = [Check("a", "", fails), Check("b", "", sleeps), *work]
    async with (
        open_transaction(database_url, "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"),
        opened(database_url) as connection,
    ):
        examined = Examined(
            Configuration(database_url=database_url), database_url, connection, SystemClock().now, False
        )
        results = await run_checks(examined, checks, check_seconds=1.0, total_seconds=60.0)
    severities = {one.check_id: one.severity for one in results}
    assert [severities["a"], severities["b"], severities["work.outbox"]] == [NOT_CHECKED] * 3
    assert severities["work.heartbeat"] is PROBLEM
    assert "it is dark" in results[0].findings[0].found


async def test_the_checks_after_the_total_time_are_reported_as_not_checked(database_url: str) -> None:
    async with opened(database_url) as connection:
        examined = Examined(
            Configuration(database_url=database_url), database_url, connection, SystemClock().now, False
        )
        results = await run_checks(examined, CHECKS, total_seconds=0.0)
    assert {one.severity for one in results} == {NOT_CHECKED}
    assert TOTAL_SECONDS == 10.0


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


async def test_settings_that_are_too_low_are_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await check(database_url, "settings.speed")
    [buffers] = [one for one in found.findings if "shared_buffers" in one.found]  # of the server of the tests
    assert "restart PostgreSQL" in buffers.todo
    assert all("pg_reload_conf" in one.todo for one in found.findings if one is not buffers)
    unsafe = await check(database_url, "settings.durability")
    assert {one.found.partition(" ")[0] for one in unsafe.findings} == {"fsync", "full_page_writes"}


async def test_the_defaults_of_postgresql_are_hints_and_values_below_them_are_warnings() -> None:
    with system_postgres() as url:
        stock = await check(url, "settings.speed")
        assert {one.found.partition(" ")[0]: one.severity for one in stock.findings} == {
            "shared_buffers": Severity.HINT,
            "random_page_cost": Severity.HINT,
        }
        assert (stock.severity, exit_code([stock])) == (Severity.HINT, 0)
        assert (await check(url, "settings.durability")).severity is OK
    with system_postgres("shared_buffers=16MB", "max_wal_size=64MB", "random_page_cost=8", "autovacuum=off") as url:
        lowered = await check(url, "settings.speed")
        assert {one.found.partition(" ")[0]: one.severity for one in lowered.findings} == {
            "shared_buffers": WARNING,
            "max_wal_size": WARNING,
            "random_page_cost": WARNING,
            "autovacuum": WARNING,
        }


async def test_few_connections_that_are_left_are_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check(database_url, "database.connections")).severity is OK
    monkeypatch.setattr("cli.doctor.database_checks.CONNECTIONS_WARNING", 0.0)
    assert (await check(database_url, "database.connections")).severity is WARNING


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


async def test_a_stopped_notifier_leaves_an_old_outbox_and_old_deliveries(
    database: Database, database_url: str
) -> None:
    house = await House.build(database, SystemClock())
    assert (await check(database_url, "work.outbox")).severity is OK
    await house.notify(3)
    fresh = await check(database_url, "work.outbox")
    assert (fresh.severity, "3 notifications wait" in fresh.findings[0].found) == (OK, True)
    await execute(database_url, "UPDATE outbox SET create_time = now() - interval '1 hour'")
    old = await check(database_url, "work.outbox")
    assert old.severity is PROBLEM
    assert "tidemark notify" in old.findings[0].todo

    assert (await check(database_url, "work.deliveries")).severity is OK
    endpoint = (await house.endpoint("https://hooks.example.com/")).endpoint.endpoint_id
    await execute(
        database_url,
        "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,"
        f" status, create_time, next_attempt_time) SELECT {house.organization_id}, 'd' || n, '{endpoint}', 'n' || n,"
        " 'c', 'alert.reached', 'PENDING', now(), now() - interval '5 minutes' FROM generate_series(1, 5) n",
    )
    due = await check(database_url, "work.deliveries")
    assert (due.severity, endpoint in due.findings[0].found) == (WARNING, True)
    await execute(
        database_url,
        "UPDATE delivery SET next_attempt_time = NULL, lease_token = gen_random_uuid(),"
        " lease_expire_time = now() - interval '1 hour' WHERE delivery_id = 'd1'",
    )
    assert (await check(database_url, "work.leases")).severity is PROBLEM


async def test_failing_and_disabled_endpoints_are_found_with_the_reason(
    database: Database, database_url: str
) -> None:
    house = await House.build(database, SystemClock())
    assert (await check(database_url, "endpoints.failing")).severity is OK
    failing = (await house.endpoint("https://hooks.example.com/")).endpoint.endpoint_id
    gone = (await house.endpoint("https://gone.example.com/")).endpoint.endpoint_id
    await execute(
        database_url,
        f"UPDATE endpoint SET failing_since = now() - interval '1 hour', failure_count = 7"
        f" WHERE endpoint_id = '{failing}'",
        f"UPDATE endpoint SET state = 'DISABLED', disable_reason = 'GONE' WHERE endpoint_id = '{gone}'",
        "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,"
        f" status, create_time, next_attempt_time) VALUES ({house.organization_id}, 'd', '{failing}', 'n', 'c',"
        " 'alert.reached', 'PENDING', now(), now())",
        "INSERT INTO attempt (organization_id, delivery_id, attempt_number, start_time, duration, outcome, error)"
        f" VALUES ({house.organization_id}, 'd', 1, now(), interval '1 s', 'CONNECTION_FAILED', 'refused by host')",
    )
    found = await check(database_url, "endpoints.failing")
    assert found.severity is WARNING
    assert failing in found.findings[0].found
    assert "refused by host" in found.findings[0].found
    disabled = await check(database_url, "endpoints.disabled")
    assert (disabled.severity, gone in disabled.findings[0].todo) == (WARNING, True)


async def test_secrets_without_a_key_are_found(database: Database, database_url: str) -> None:
    house = await House.build(database, SystemClock())
    await house.endpoint("https://hooks.example.com/")
    own = Configuration(database_url=database_url, secret_keys=(("test", b"x" * 32),))
    assert (await check(database_url, "secrets.keys", settings=own)).severity is OK
    other = replace(own, secret_keys=(("other", b"x" * 32),))
    found = await check(database_url, "secrets.keys", settings=other)
    assert (found.severity, "'test'" in found.findings[0].found) == (PROBLEM, True)


async def test_keys_that_expire_soon_or_have_just_expired_are_found(database: Database, database_url: str) -> None:
    assert "no API key" in (await check(database_url, "keys.expiry")).findings[0].found
    now = datetime.now(UTC)
    async with database.transaction() as connection:
        soon = await keys.create_key(
            connection, "acme", now, KeySettings(expire_time=now + timedelta(days=3), display_name="collector")
        )
        await keys.create_key(connection, "acme", now, KeySettings(expire_time=now + timedelta(days=300)))
    found = await check(database_url, "keys.expiry")
    assert found.severity is WARNING
    [one] = found.findings
    assert "collector" in one.found
    assert f"tidemark keys rotate {soon.key_id} --organization acme" in one.todo
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE api_key SET expire_time = now() - interval '1 h', last_use_time = now() - interval '2 h'")
        )
    assert (await check(database_url, "keys.expiry")).severity is PROBLEM


def _before(time: datetime, left: timedelta) -> datetime:
    return time - left


async def test_certificates_that_end_or_do_not_fit_are_found(database_url: str, tmp_path: Path) -> None:
    authority = Authority()
    signed, certificate, key, ca = authority.server(), tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "ca.pem"
    signed.write(certificate, key)
    ends = x509.load_pem_x509_certificate(signed.certificate).not_valid_after_utc
    ca.write_bytes(authority.pem)
    settings = Configuration(database_url=database_url, tls_certificate=certificate, tls_key=key, tls_client_ca=ca)
    of_server = replace(settings, tls_client_ca=None)
    for hours_left, severity in ((23, OK), (9, WARNING), (2, PROBLEM)):  # of its lifetime of two days
        now = partial(_before, ends, timedelta(hours=hours_left))
        found = await check(database_url, "certificates.expiry", settings=of_server, now=now)
        assert [one.severity for one in found.findings] == [severity]
    authority.server(lifetime=timedelta(days=365)).write(certificate, key)
    found = await check(
        database_url,
        "certificates.expiry",
        settings=settings,
        now=lambda: datetime.now(UTC) + timedelta(days=345),
    )
    assert [one.severity for one in found.findings] == [WARNING, PROBLEM]  # that of the authority has ended

    def next_year() -> datetime:
        return datetime.now(UTC) + timedelta(days=370)

    ended = await check(database_url, "certificates.expiry", settings=settings, now=next_year)
    assert "ended" in ended.findings[0].found

    def last_month() -> datetime:
        return datetime.now(UTC) - timedelta(days=15)

    early = await check(database_url, "certificates.expiry", settings=settings, now=last_month)
    assert "valid only from" in early.findings[0].found
    authority.server().write(tmp_path / "other.pem", key)
    unfit = await check(database_url, "certificates.expiry", settings=settings)
    assert (unfit.severity, "is not the one of the certificate" in unfit.findings[0].found) == (PROBLEM, True)


async def test_work_that_waits_for_servers_is_found(database: Database, database_url: str) -> None:
    await House.build(database, SystemClock())
    ids = "(SELECT organization_id FROM organization)"
    for check_id in (
        *("work.timers", "work.evaluations", "work.erasures", "work.redeliveries", "work.backfills"),
        *("work.reservations", "work.recharges", "work.recharge_policies"),
    ):
        assert (await check(database_url, check_id)).severity is OK
    await execute(
        database_url,
        f"INSERT INTO wallet (organization_id, customer_id, due_time) VALUES ({ids}, 'c', now() - interval '1 hour')",
        # One is late, one is in its grace, and one has ended.
        *(
            "INSERT INTO reservation (organization_id, customer_id, reservation_id, state, digest, metric_id,"
            " quantity, overage_policy, outcome, granted_quantity, event_time, create_time, expire_time)"
            f" VALUES ({ids}, 'c', '{name}', '{state}', gen_random_uuid(), 'm', 1, 'DEFAULT', 'ALLOWED', 1, now(),"
            f" now(), now() - interval '{age}')"
            for name, state, age in (
                ("late", "OPEN", "1 hour"),
                ("due", "OPEN", "1 second"),
                ("no", "RELEASED", "1 day"),
            )
        ),
        "INSERT INTO recharge_policy (organization_id, customer_id, balance_id, policy_id, below, fixed_amount,"
        " min_amount, cooldown, failure_cooldown, max_attempts, report_timeout, as_of_time, create_time, update_time,"
        f" state, failed_attempts, last_sequence) VALUES ({ids}, 'c', 'b', 'p', 1, 1, 0, '0', '0', 1, '1 day', now(),"
        " now(), now(), 'DISABLED', 1, 1)",
        "INSERT INTO recharge (organization_id, customer_id, recharge_id, balance_id, policy_id, sequence, state,"
        f" attempt, unit, amount, remaining, create_time, expire_time) VALUES ({ids}, 'c', 'r', 'b', 'p', 1,"
        " 'REQUESTED', 1, 'cost/USD', 1, 0, now() - interval '2 days', now())",
        "INSERT INTO customer_evaluation (organization_id, customer_id, facts, usage, subscriptions, limit_units,"
        f" epoch, change_time, due_time) VALUES ({ids}, 'c', true, true, true, '{{}}', 1, now(),"
        " now() - interval '1 hour')",
        "INSERT INTO erasure_job (organization_id, job_id, customer_id, pseudonym, state, create_time)"
        f" VALUES ({ids}, 'j', 'c', 'p', 'RUNNING', now() - interval '2 hours')",
        "INSERT INTO redelivery_job (organization_id, job_id, endpoint_id, kind, state, start_time, end_time,"
        f" statuses, create_time) VALUES ({ids}, 'j', 'e', 'RECOVERY', 'RUNNING', now(), now(), '{{}}',"
        " now() - interval '2 hours')",
        "INSERT INTO alert (organization_id, alert_id, name, state, scope, condition_type, condition, thresholds,"
        " uniqueness_key_held, evaluate_on_create, version, changed_epoch, watching_epoch, watching_time,"
        f" visit_after, create_time, update_time) VALUES ({ids}, 'a', 'n', 'ACTIVE', 'ALL_CUSTOMERS',"
        " 'usage_threshold_reached', '{}', '[]', false, true, 1, 1, 1, now(), '', now(), now() - interval '2 hours')",
        f"INSERT INTO feed_pending (organization_id, customer_id, notification_id) SELECT {ids}, 'c', 'n' || n"
        " FROM generate_series(1, 6000) n",
    )
    for check_id, severity in (
        ("work.timers", PROBLEM),
        ("work.evaluations", PROBLEM),
        ("work.erasures", WARNING),
        ("work.redeliveries", WARNING),
        ("work.backfills", WARNING),
        ("work.reservations", PROBLEM),
        ("work.recharges", WARNING),
        ("work.recharge_policies", WARNING),
        ("work.feed", WARNING),
    ):
        assert (await check(database_url, check_id)).severity is severity, check_id


async def test_quotas_that_are_nearly_used_are_found(database: Database, database_url: str) -> None:
    await House.build(database, SystemClock(), "acme")
    settings = Configuration(database_url=database_url, quotas={QuotaKind.STREAMS: 10, QuotaKind.ALERTS: 100})
    assert (await check(database_url, "quotas.use", settings=settings)).severity is OK
    ids = "(SELECT organization_id FROM organization)"
    await execute(
        database_url,
        "INSERT INTO quota_use (organization_id, process_id, streams, watchers, events_per_second, bytes_per_second,"
        f" update_time) SELECT {ids}, 'p' || n, 5, 50, 0, 0, now() + interval '1 hour' FROM generate_series(1, 2) n",
        f"INSERT INTO alert_count (organization_id, alerts) VALUES ({ids}, 85)",
    )
    found = await check(database_url, "quotas.use", settings=settings)
    assert [(one.severity, one.found.partition(":")[0]) for one in found.findings] == [
        (PROBLEM, "acme uses 10 of its quota of 10 streams"),
        (WARNING, "acme uses 85 of its quota of 100 alerts"),
    ]
    own = f'INSERT INTO organization_quota VALUES ({ids}, \'{{"streams": null, "alerts": 1000}}\', now())'
    await execute(database_url, own)
    assert (await check(database_url, "quotas.use", settings=settings)).severity is OK


async def test_quotas_of_an_organization_that_has_created_nothing_since_are_found(
    database: Database, database_url: str
) -> None:
    house = await House.build(database, SystemClock(), "acme")
    await house.endpoint("https://hooks.example.com/")
    quotas = json.dumps({"alerts": 1, "endpoints": 1, "streams": 0})  # none is used of a quota of 0
    await execute(
        database_url,
        f"INSERT INTO organization_quota VALUES ({house.organization_id}, '{quotas}', now())",
        "INSERT INTO quota_use (organization_id, process_id, streams, watchers, events_per_second, bytes_per_second,"
        f" update_time) VALUES ({house.organization_id}, 'p', 0, 0, 0, 0, now() + interval '1 hour')",
        "INSERT INTO alert (organization_id, alert_id, name, state, scope, condition_type, condition, thresholds,"
        " uniqueness_key_held, evaluate_on_create, version, changed_epoch, watching_epoch, watching_time,"
        f" create_time, update_time) VALUES ({house.organization_id}, 'a', 'n', 'ACTIVE', 'ALL_CUSTOMERS',"
        " 'usage_threshold_reached', '{}', '[]', false, true, 1, 1, 1, now(), now(), now())",
    )
    found = await check(database_url, "quotas.use")
    assert {(one.severity, one.found) for one in found.findings} == {
        (PROBLEM, "acme uses 1 of its quota of 1 alerts"),
        (PROBLEM, "acme uses 1 of its quota of 1 endpoints"),
    }


async def test_the_heartbeat_and_the_health_of_a_server_are_found(
    database: Database, database_url: str, clock: ManualClock
) -> None:
    unused = await check(database_url, "work.heartbeat")
    assert (unused.severity, unused.findings[0].todo) == (PROBLEM, "tidemark serve")
    assert (await check(database_url, "server.health", address=Address("127.0.0.1:1"))).severity is PROBLEM
    async with running(database, clock) as server:
        address = Address(f"127.0.0.1:{server.port}")
        assert (await check(database_url, "server.health", address=address)).severity is OK
        await until(database_url, "work.heartbeat", OK)
    await execute(database_url, "UPDATE heartbeat SET beat_time = now() - interval '1 hour'")
    assert (await check(database_url, "work.heartbeat")).severity is PROBLEM


def test_the_command_prints_findings_for_people_and_for_machines(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)
    monkeypatch.setattr("cli.doctor.command.run_checks", _with_time)
    result = CliRunner().invoke(tidemark, ["doctor"])
    assert result.exit_code == 2  # no server has ever used this database
    assert "work.heartbeat" in result.stdout
    assert "tidemark serve" in result.stdout
    assert "database.version" not in result.stdout
    every = CliRunner().invoke(tidemark, ["doctor", "--all"])
    assert "database.version" in every.stdout
    machines = CliRunner().invoke(tidemark, ["doctor", "--json"])
    assert machines.exit_code == 2
    found = json.loads(machines.stdout)
    assert found[0]["check"] == "database.connection"
    assert {one["check"] for one in found} == {"database.connection", *(one.check_id for one in CHECKS)}
    assert all(one.keys() == {"check", "severity", "found", "why", "todo"} for one in found)


async def _with_time(examined: Examined, checks: list[Check]) -> object:
    """All checks, with time enough for a busy machine of tests."""
    return await run_checks(examined, checks, check_seconds=30.0, total_seconds=300.0)


def test_a_database_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", "postgresql://operator:hunter2@127.0.0.1:1/usage")
    result = CliRunner().invoke(tidemark, ["doctor", "--json"])
    assert result.exit_code == 2
    [one] = json.loads(result.stdout)
    assert (one["check"], one["severity"]) == ("database.connection", "problem")
    assert "hunter2" not in result.output
    monkeypatch.delenv("TIDEMARK_DATABASE_URL")
    monkeypatch.setenv("TIDEMARK_DATA_DIRECTORY", str(tmp_path / "none"))
    result = CliRunner().invoke(tidemark, ["doctor"])
    assert (result.exit_code, "no embedded database" in result.output) == (2, True)
    assert not (tmp_path / "none").exists()
