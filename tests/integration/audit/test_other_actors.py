"""Changes that no RPC makes: commands, the notifier, and callers before the first key."""

import asyncio
import base64
import getpass
import socket
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf import json_format

from cli.main import tidemark
from generated.tidemark.v1 import account_service_pb2, account_service_pb2_grpc, audit_entry_pb2, plan_pb2, quota_pb2
from runtime.clock import ManualClock, SystemClock
from server.mapping.audit_entries import entry_message
from store.audit import log, numbering
from store.audit.log import AuditFilter, StoredEntry
from store.endpoints.rows import Settings
from store.identity import organizations
from store.postgres.database import Database
from tests.support.notifier.delivery_queue import claim, failed, fan_out, record
from tests.support.notifier.endpoint_rows import change
from tests.support.notifier.house import House
from tests.support.server.running import running


async def entries_of(database: Database, organization_id: int) -> list[StoredEntry]:
    async with numbering.reading(database, organization_id) as connection:
        found, _ = await log.read(connection, organization_id, AuditFilter(), after=0, limit=1_000)
    return found


async def entries_of_organization(database_url: str, name: str) -> list[audit_entry_pb2.AuditEntry]:
    database = Database(database_url)
    async with database.transaction() as connection:
        organization_id = await organizations.find(connection, name)
    assert organization_id is not None
    found = [entry_message(entry) for entry in await entries_of(database, organization_id)]
    await database.close()
    return found


def run(*arguments: str) -> str:
    result = CliRunner().invoke(tidemark, ["keys", *arguments])
    assert result.exit_code in (0, 1), result.output
    return result.stdout


def key_ids() -> list[str]:
    return [line.split()[0] for line in run("list").splitlines()[1:]]


async def test_commands_record_the_keys_that_they_change(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)

    def commands() -> list[str]:  # they have event loops of their own
        of_acme = ("--organization", "acme")
        secrets = [run("create", *of_acme, "--role", "reader", "--display-name", "pages").strip()]
        [key_id] = key_ids()
        run("update", *of_acme, key_id, "--customer", "bob")
        run("update", *of_acme, key_id, "--customer", "bob")  # changes nothing
        secrets.append(run("rotate", *of_acme, key_id, "--overlap", "1h").strip())
        run("revoke", "--yes", *of_acme, key_id)
        run("revoke", "--yes", *of_acme, key_id)  # changes nothing
        run("revoke", "--yes", "--organization", "other", key_id)  # is refused
        return secrets

    secrets = await asyncio.to_thread(commands)
    entries = await entries_of_organization(database_url, "acme")
    assert [(entry.method, list(entry.changed_fields)) for entry in entries] == [
        ("tidemark keys create", []),
        ("tidemark keys update", ["customer_id"]),
        ("tidemark keys rotate", []),
        ("tidemark keys rotate", ["expire_time"]),
        ("tidemark keys revoke", ["revoke_time"]),
    ]
    assert [entry.customer_id for entry in entries] == ["", "bob", "bob", "bob", "bob"]
    for entry in entries:
        assert entry.actor.kind == audit_entry_pb2.AUDIT_ACTOR_KIND_COMMAND_LINE
        assert entry.actor.actor_id == f"{getpass.getuser()}@{socket.gethostname()}"
        assert entry.resource_type == audit_entry_pb2.AUDIT_RESOURCE_TYPE_API_KEY
    assert entries[0].after.api_key.display_name == "pages"
    assert not entries[0].HasField("before")
    shown = "".join(map(str, map(json_format.MessageToDict, entries)))
    assert not [secret for secret in secrets if secret in shown]


async def test_command_records_the_quotas_that_it_sets(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)

    def commands() -> None:
        for words in (
            ("keys", "create", "--organization", "acme"),
            ("quotas", "set", "--organization", "acme", "alerts=10", "streams=none"),
            ("quotas", "set", "--organization", "acme", "alerts=10"),  # changes nothing
            ("quotas", "set", "--organization", "acme", "alerts=default", "streams=default"),
        ):
            result = CliRunner().invoke(tidemark, words)
            assert result.exit_code == 0, result.output

    await asyncio.to_thread(commands)
    _, first, second = await entries_of_organization(database_url, "acme")
    for entry in (first, second):
        assert entry.method == "tidemark quotas set"
        assert entry.actor.kind == audit_entry_pb2.AUDIT_ACTOR_KIND_COMMAND_LINE
        assert entry.resource_type == audit_entry_pb2.AUDIT_RESOURCE_TYPE_QUOTAS
    alerts, streams = quota_pb2.QUOTA_KIND_ALERTS, quota_pb2.QUOTA_KIND_STREAMS
    quotas = [quota_pb2.Quota(kind=alerts, limit=10, own=True), quota_pb2.Quota(kind=streams, own=True)]
    assert sorted(first.after.quotas.quotas, key=lambda one: one.kind) == quotas
    assert not first.HasField("before")
    assert len(second.before.quotas.quotas) == 2
    assert not second.HasField("after")


async def test_command_records_how_many_secrets_it_encrypts_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)
    database = Database(database_url)
    house = await House.build(database, SystemClock(), "acme")
    for number in range(3):
        credentials = None if number else "Bearer hush"
        await house.endpoint(
            "", settings=Settings(url=f"https://hooks.example.com/{number}", credentials=credentials)
        )
    await database.close()
    old = "test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE="
    new = f"new:{base64.b64encode(b'n' * 32).decode()}"

    def commands() -> None:
        for keys in (f"{new},{old}", new):  # the second run finds nothing to do
            monkeypatch.setenv("TIDEMARK_SECRET_KEYS", keys)
            result = CliRunner().invoke(tidemark, ["secrets", "reencrypt"])
            assert result.exit_code == 0, result.output

    monkeypatch.setattr("cli.organizations.secrets.BATCH_LIMIT", 2)
    await asyncio.to_thread(commands)
    entries = await entries_of_organization(database_url, "acme")
    assert [entry.after.endpoint_secrets for entry in entries] == [
        audit_entry_pb2.AuditedEndpointSecrets(signing_secret_count=2),
        audit_entry_pb2.AuditedEndpointSecrets(signing_secret_count=1),
        audit_entry_pb2.AuditedEndpointSecrets(credential_count=1),
    ]
    for entry in entries:
        assert entry.method == "tidemark secrets reencrypt"
        assert entry.actor.kind == audit_entry_pb2.AUDIT_ACTOR_KIND_COMMAND_LINE
        assert entry.actor.actor_id == f"{getpass.getuser()}@{socket.gethostname()}"
        assert entry.resource_type == audit_entry_pb2.AUDIT_RESOURCE_TYPE_ENDPOINT_SECRETS
        assert not entry.HasField("before")


async def test_secret_that_cannot_be_decrypted_leaves_no_entry(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)
    database = Database(database_url)
    house = await House.build(database, SystemClock(), "acme")
    await house.endpoint("https://hooks.example.com/")
    await database.close()
    monkeypatch.setenv("TIDEMARK_SECRET_KEYS", f"new:{base64.b64encode(b'n' * 32).decode()}")
    result = await asyncio.to_thread(CliRunner().invoke, tidemark, ["secrets", "reencrypt"])
    assert result.exit_code == 1
    assert await entries_of_organization(database_url, "acme") == []


async def test_notifier_records_the_endpoint_that_it_disables(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    await house.notify(1)
    await fan_out(house)
    endpoint_id = created.endpoint.endpoint_id
    await change(house, endpoint_id, failing_since="now() - interval '30 days'", failure_count=1_000)
    [claimed] = await claim(house)
    await record(house, [failed(claimed)])
    [entry] = await entries_of(house.database, created.endpoint.organization_id)
    message = entry_message(entry)
    assert message.actor.kind == audit_entry_pb2.AUDIT_ACTOR_KIND_SERVICE
    assert message.method == "tidemark notify"
    assert message.resource_id == endpoint_id
    assert list(message.changed_fields) == ["state", "disable_reason"]


async def test_caller_before_the_first_key_is_anonymous(database: Database, clock: ManualClock) -> None:
    async with running(database, clock) as server:
        request = account_service_pb2.PutPlanRequest(plan=plan_pb2.Plan(plan_id="gold"))
        stub: Any = account_service_pb2_grpc.AccountServiceStub(server.channel)
        await stub.PutPlan(request)
        async with database.transaction() as connection:
            organization_id = await organizations.find(connection, "default")
        assert organization_id is not None
        [entry] = await entries_of(database, organization_id)
    message = entry_message(entry)
    assert message.actor == audit_entry_pb2.AuditActor(kind=audit_entry_pb2.AUDIT_ACTOR_KIND_ANONYMOUS)
    assert message.origin.request_id
