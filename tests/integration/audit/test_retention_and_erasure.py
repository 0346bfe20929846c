"""What leaves the audit log: months that are too old, and what the log knows of an erased customer."""

from datetime import datetime, timedelta

import grpc
import psycopg
import pytest

from engine.upkeep import Upkeep
from generated.tidemark.v1 import account_service_pb2, alert_service_pb2, audit_entry_pb2, limit_pb2, scope_pb2
from generated.tidemark.v1.audit_service_pb2 import GetAuditEntryRequest, WatchAuditEntriesRequest
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.audit import erasing, log, writing
from store.audit.entries import SERVER, Changed, NewEntry, ResourceType
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database, driver
from tests.support.audit.api import AuditedApi, AuditedCaller
from tests.support.server.running import metadata_of, reason_of
from tests.support.usage.caller import until

RETENTION = timedelta(days=60)


async def write(database: Database, organization_id: int, name: str, time: datetime, customer_id: str = "") -> None:
    async with database.transaction() as connection:
        entry = NewEntry(SERVER, Changed(ResourceType.PLAN, name, customer_id))
        await writing.write(await driver(connection), organization_id, [entry], time)


async def maintain(database: Database, now: datetime) -> None:
    year = timedelta(days=400)
    await Upkeep(database, ManualClock(now), year, year, audit_retention=RETENTION).run_once()


def partitions(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_entry'::regclass ORDER BY 1"
        ).fetchall()
    return [row[0] for row in rows]


@pytest.mark.own_database
async def test_old_months_are_dropped_and_tokens_before_their_end_have_expired(
    api: AuditedApi, database: Database, database_url: str, clock: ManualClock
) -> None:
    first = clock.now()
    await write(database, api.ours.organization_id, "march", first)
    [march] = await api.ours.entries()
    stream = api.ours.audit.WatchAuditEntries(WatchAuditEntriesRequest(start_time=to_timestamp(first)))
    token = (await stream.read()).resume_token
    stream.cancel()
    for days, name in ((40, "april"), (70, "may")):
        now = first + timedelta(days=days)
        await maintain(database, now)
        await write(database, api.ours.organization_id, name, now)
        await api.ours.entries()
    assert "audit_entry_2026_03" in partitions(database_url)

    await maintain(database, first + timedelta(days=80))  # 60 days after the end of March
    assert "audit_entry_2026_03" not in partitions(database_url)
    entries = await api.ours.entries()
    assert [(entry.entry_number, entry.resource_id) for entry in entries] == [(2, "april"), (3, "may")]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.ours.audit.GetAuditEntry(GetAuditEntryRequest(entry_number=march.entry_number))
    assert reason_of(refused.value) == "ERROR_REASON_AUDIT_ENTRY_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.ours.audit.WatchAuditEntries(WatchAuditEntriesRequest(resume_token=token)).read()
    assert reason_of(refused.value) == "ERROR_REASON_RESUME_TOKEN_EXPIRED"
    assert metadata_of(refused.value) == {"retention_days": "400"}
    # The numbers go on, also of a log whose partitions are all gone.
    await maintain(database, first + timedelta(days=400))
    assert await api.ours.entries() == []
    await write(database, api.ours.organization_id, "later", first + timedelta(days=400))
    assert [entry.entry_number for entry in await api.ours.entries()] == [4]


@pytest.mark.own_database
async def test_entry_of_a_wrong_clock_gets_a_number_and_keeps_the_order(
    api: AuditedApi, database: Database, database_url: str, clock: ManualClock
) -> None:
    now = clock.now()
    for name, time in (
        ("past", now - timedelta(days=900)),
        ("now", now),
        ("future", now + timedelta(days=9_000)),
        ("after", now),
    ):
        await write(database, api.ours.organization_id, name, time)
    stream = api.ours.audit.WatchAuditEntries(WatchAuditEntriesRequest(start_time=to_timestamp(now)))
    assert (await stream.read()).heartbeat
    assert [(await stream.read()).entry.resource_id for _ in range(3)] == ["now", "future", "after"]
    stream.cancel()
    assert [one.entry_number for one in sorted(await api.ours.entries(), key=lambda one: one.entry_number)] == [
        1,
        2,
        3,
        4,
    ]
    assert len(partitions(database_url)) < 10, "not one for each month between"


async def test_erased_customer_leaves_who_and_when_and_not_what(
    api: AuditedApi, database: Database, database_url: str, clock: ManualClock
) -> None:
    put = account_service_pb2.PutCustomerRequest()
    for customer_id in ("person", "neighbour"):
        put.customer.customer_id, put.customer.display_name = customer_id, f"name of {customer_id}"
        await api.ours.accounts.PutCustomer(put)
        limit = limit_pb2.Limit(
            limit_id=f"limit of {customer_id}",
            customer=scope_pb2.CustomerScope(customer_id=customer_id),
            amount="10",
        )
        limit.quantity.metric_id = "tokens"
        await api.ours.accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit))
        alert = alert_service_pb2.CreateAlertRequest()
        alert.alert.display_name = f"of {customer_id}"
        alert.alert.scope.customer.customer_id = customer_id
        alert.alert.usage_threshold_reached.metric_id = "tokens"
        alert.alert.thresholds.add(value="10")
        await api.ours.alerts.CreateAlert(alert)
    before = await api.ours.entries()
    deleted = await api.ours.accounts.DeleteCustomer(account_service_pb2.DeleteCustomerRequest(customer_id="person"))

    async def is_done() -> bool:
        request = account_service_pb2.GetErasureJobRequest(job_id=deleted.job.job_id)
        return bool((await api.ours.accounts.GetErasureJob(request)).job.customer_id == "")

    await until(is_done)
    after = await api.ours.entries()
    assert len(after) == 7
    assert after[3:6] == before[3:]
    erased = [entry for entry in after if entry.erased]
    assert [entry.entry_number for entry in erased] == [1, 2, 3, 7]
    for entry, was in zip(after[:3], before[:3], strict=True):
        assert not entry.HasField("before")
        assert not entry.HasField("after")
        assert entry.customer_id == deleted.job.pseudonym
        assert (entry.actor, entry.method, entry.origin) == (was.actor, was.method, was.origin)
        assert entry.create_time == was.create_time
    assert [entry.resource_id for entry in after[:3]] == ["", "", before[2].resource_id]
    assert after[6].resource_type == audit_entry_pb2.AUDIT_RESOURCE_TYPE_ERASURE_JOB
    assert after[6].resource_id == deleted.job.job_id
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT e::text, before_state, after_state FROM audit_entry e").fetchall()
    stored = b"".join(part if isinstance(part, bytes) else str(part).encode() for row in rows for part in row)
    assert b"person" not in stored
    assert b"neighbour" in stored


async def test_erased_parent_is_erased_in_the_entries_of_those_below_it(api: AuditedApi, database_url: str) -> None:
    put = account_service_pb2.PutCustomerRequest()
    for parent, display_name in (("", "first"), ("person", "below"), ("person", "renamed")):
        put.customer.customer_id, put.customer.display_name = "team", display_name
        put.customer.parent_customer_id = parent
        await api.ours.accounts.PutCustomer(put)
    put.customer.customer_id, put.customer.parent_customer_id = "neighbour", "organization"
    await api.ours.accounts.PutCustomer(put)
    before = await api.ours.entries()
    assert [list(entry.changed_fields) for entry in before] == [
        [],
        ["display_name", "parent_customer_id"],
        ["display_name"],
        [],
    ]
    deleted = await api.ours.accounts.DeleteCustomer(account_service_pb2.DeleteCustomerRequest(customer_id="person"))

    async def is_done() -> bool:
        request = account_service_pb2.GetErasureJobRequest(job_id=deleted.job.job_id)
        return bool((await api.ours.accounts.GetErasureJob(request)).job.customer_id == "")

    await until(is_done)
    after = await api.ours.entries()
    assert (after[0], after[3]) == (before[0], before[3])
    for entry in after[1:3]:
        assert (entry.customer_id, entry.resource_id, entry.erased) == ("team", "team", True)
        assert not entry.HasField("before")
        assert not entry.HasField("after")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT before_state, after_state FROM audit_entry").fetchall()
    assert b"person" not in b"".join(part for row in rows for part in row if part is not None)


async def test_erased_customer_leaves_no_key_that_is_limited_to_it(
    api: AuditedApi, database: Database, database_url: str, clock: ManualClock
) -> None:
    made = []
    for customer_id in ("person", "neighbour"):
        put = account_service_pb2.PutCustomerRequest()
        put.customer.customer_id = customer_id
        await api.ours.accounts.PutCustomer(put)
        async with database.transaction() as connection:
            settings = KeySettings(frozenset([Role.READER]), customer_id, f"page of {customer_id}")
            key = await keys.create_key(connection, "ours", clock.now(), settings)
        made.append(AuditedCaller(api.server, key))
    person, neighbour = made
    get = account_service_pb2.GetCustomerRequest(customer_id="person")
    await person.accounts.GetCustomer(get)
    await api.ours.accounts.DeleteCustomer(account_service_pb2.DeleteCustomerRequest(customer_id="person"))

    async def is_refused() -> bool:
        try:
            await person.accounts.GetCustomer(get)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    await until(is_refused)
    await neighbour.accounts.GetCustomer(account_service_pb2.GetCustomerRequest(customer_id="neighbour"))
    entry = (await api.ours.entries())[-1]
    assert (entry.resource_id, list(entry.changed_fields)) == (person.key.key_id, ["revoke_time"])
    assert entry.actor.kind == audit_entry_pb2.AUDIT_ACTOR_KIND_SERVICE
    with psycopg.connect(database_url) as connection_:
        stored = connection_.execute(
            "SELECT k::text FROM api_key k UNION SELECT e::text FROM audit_entry e"
        ).fetchall()
    assert "person" not in str(stored)
    assert "neighbour" in str(stored)


async def test_erasure_takes_many_entries_in_parts(api: AuditedApi, database: Database, clock: ManualClock) -> None:
    organization_id = api.ours.organization_id
    for number in range(25):
        await write(database, organization_id, f"p{number}", clock.now(), "person")
    await write(database, organization_id, "other", clock.now(), "neighbour")
    parts, more = list[int](), True
    while more:
        async with database.transaction() as connection:
            count, more = await erasing.erase_customer(connection, organization_id, "person", "erased_1", 10)
            parts.append(count)
    assert parts == [10, 10, 5, 0]
    async with database.transaction() as connection:
        found, _ = await log.read(connection, organization_id, log.AuditFilter(), after=0, limit=100)
    assert [one.changed.customer_id for one in found] == ["erased_1"] * 25 + ["neighbour"]
