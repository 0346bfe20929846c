"""`tidemark doctor` finds keys, certificates and secrets that end or do not fit, and quotas that are nearly used."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from sqlalchemy import text

from cli.doctor.findings import Severity
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.quotas import QuotaKind
from store.identity import keys
from store.identity.keys import KeySettings
from store.postgres.database import Database
from tests.support.cli.doctor import check, execute
from tests.support.notifier.house import House
from tests.support.server.certificates import Authority

OK, WARNING, PROBLEM = Severity.OK, Severity.WARNING, Severity.PROBLEM


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


async def test_quotas_that_are_nearly_used_are_found(database: Database, database_url: str) -> None:
    acme = (await House.build(database, SystemClock(), "acme")).organization_id
    settings = Configuration(database_url=database_url, quotas={QuotaKind.STREAMS: 10, QuotaKind.ALERTS: 100})
    assert (await check(database_url, "quotas.use", settings=settings)).severity is OK
    await execute(
        database_url,
        "INSERT INTO quota_use (organization_id, process_id, streams, watchers, events_per_second, bytes_per_second,"
        f" update_time) SELECT {acme}, 'p' || n, 5, 50, 0, 0, now() + interval '1 hour' FROM generate_series(1, 2) n",
        f"INSERT INTO alert_count (organization_id, alerts) VALUES ({acme}, 85)",
    )
    found = await check(database_url, "quotas.use", settings=settings)
    assert [(one.severity, one.found.partition(":")[0]) for one in found.findings] == [
        (PROBLEM, "acme uses 10 of its quota of 10 streams"),
        (WARNING, "acme uses 85 of its quota of 100 alerts"),
    ]
    own = f'INSERT INTO organization_quota VALUES ({acme}, \'{{"streams": null, "alerts": 1000}}\', now())'
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
