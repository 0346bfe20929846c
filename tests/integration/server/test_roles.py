"""Roles of API keys over the wire: what each may call, and how open streams follow changes of their key."""

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.message_factory import GetMessageClass

from cli.main import tidemark
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import alert_service_pb2_grpc
from proto.documents.contract import METHODS
from runtime.clock import ManualClock
from server.authentication.access import ACCESS
from server.authentication.api_keys import CACHE_LIFETIME, USES_INTERVAL
from server.limits import ServerLimits
from store.identity import keys
from store.identity.callers import Caller, callers_of
from store.identity.key_changes import rotate_key, update_key
from store.identity.keys import CreatedKey, KeySettings
from store.identity.roles import Role, allows
from store.postgres.database import Database
from tests.support.server.running import Running, reason_of
from tests.support.waiting import within

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
LIMIT = 60.0  # seconds, of everything that is waited for
ROLE_MISSING = "ERROR_REASON_ROLE_MISSING"
OTHER_CUSTOMER = "ERROR_REASON_OTHER_CUSTOMER"

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
def server_limits() -> ServerLimits:
    return ServerLimits(revocation_interval=0.02)


async def create_key(database: Database, *roles: Role, **settings: Any) -> CreatedKey:
    async with database.transaction() as connection:
        return await keys.create_key(connection, "acme", NOW, KeySettings(frozenset(roles), **settings))


async def change(database: Database, key: CreatedKey, changes: Mapping[str, Any]) -> None:
    async with database.transaction() as connection:
        assert await update_key(connection, "acme", key.key_id, changes) is not None


def authorized(key: CreatedKey | str) -> Metadata:
    return (("authorization", f"Bearer {key if isinstance(key, str) else key.key}"),)


@dataclass(frozen=True)
class Refused:
    """How a call was refused; code and reason are empty if it was not."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""


async def called(api: Running, method: str, request: bytes, metadata: Metadata) -> Refused:
    """Calls any method with the bytes of one request, and reads one answer.

    Not as a stream of requests: the server may refuse the call before its first message is sent, and grpc.aio then
    gives INTERNAL of its own in place of the status of the server. This form sends the message together with its end.
    """
    multi: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = api.channel.unary_stream(method)
    call = multi(request, metadata=metadata)
    try:
        async with asyncio.timeout(LIMIT):
            await call.read()
    except grpc.aio.AioRpcError as error:
        return Refused(error.code(), reason_of(error))
    finally:
        call.cancel()
    return Refused()


@pytest.mark.parametrize("role", Role)
async def test_key_calls_exactly_the_methods_of_its_role(api: Running, database: Database, role: Role) -> None:
    metadata = authorized(await create_key(database, role))
    for method in METHODS:
        name = f"/{method.containing_service.full_name}/{method.name}"
        found = await called(api, name, b"", metadata)
        denied = found.code is grpc.StatusCode.PERMISSION_DENIED
        assert denied == (not allows([role], ACCESS[name].role)), name
        assert not denied or found.reason == ROLE_MISSING


async def test_key_of_one_customer_reads_only_that_customer(api: Running, database: Database) -> None:
    metadata = authorized(await create_key(database, Role.READER, customer_id="bob"))
    for method in METHODS:
        name = f"/{method.containing_service.full_name}/{method.name}"
        fields = ACCESS[name].customer_fields
        for customer_id in ("bob", "ann"):
            request: Any = GetMessageClass(method.input_type)()
            for field in fields:
                *path, last = field.split(".")
                named = functools.reduce(getattr, path, request)
                if named.DESCRIPTOR.fields_by_name[last].is_repeated:
                    getattr(named, last).append(customer_id)
                else:
                    setattr(named, last, customer_id)
            found = await called(api, name, request.SerializeToString(), metadata)
            if ACCESS[name].open_to_customers or (fields and customer_id == "bob"):
                assert found.code is not grpc.StatusCode.PERMISSION_DENIED, name
            else:
                assert found.code is grpc.StatusCode.PERMISSION_DENIED, name


async def watch(api: Running, key: CreatedKey, **request: Any) -> Any:
    """A stream of notifications that has begun."""
    stub: Any = alert_service_pb2_grpc.AlertServiceStub(api.channel)
    call = stub.WatchNotifications(messages.WatchNotificationsRequest(**request), metadata=authorized(key))
    assert (await call.read()).heartbeat
    return call


async def end_of(call: Any) -> grpc.aio.AioRpcError:
    """The error with which a stream ends."""
    async with asyncio.timeout(LIMIT):
        try:
            answer: Any = None
            while answer is not grpc.aio.EOF:
                answer = await call.read()
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError("the stream ended without an error")


async def test_open_stream_ends_when_its_key_loses_the_role_and_another_goes_on(
    api: Running, database: Database
) -> None:
    lowered, kept = [await create_key(database, Role.EDITOR) for _ in range(2)]
    ending, going_on = await watch(api, lowered), await watch(api, kept)
    await change(database, kept, {"roles": frozenset({Role.READER})})
    await change(database, lowered, {"roles": frozenset({Role.INGESTER})})
    error = await end_of(ending)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, ROLE_MISSING)
    assert not going_on.done()
    going_on.cancel()


async def test_open_stream_ends_when_its_key_is_limited_to_a_customer(api: Running, database: Database) -> None:
    key, of_bob = await create_key(database, Role.READER), await create_key(database, Role.READER, customer_id="bob")
    ending, going_on = await watch(api, key), await watch(api, of_bob, customer_ids=["bob"])
    await change(database, key, {"customer_id": "bob"})
    error = await end_of(ending)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, OTHER_CUSTOMER)
    assert not going_on.done()
    going_on.cancel()


async def test_new_roles_are_recognized_and_the_key_expires(
    api: Running, database: Database, clock: ManualClock
) -> None:
    key = await create_key(database, Role.READER, expire_time=NOW + timedelta(hours=1))
    create = "/tidemark.v1.AlertService/CreateAlert"
    assert (await called(api, create, b"", authorized(key))).reason == ROLE_MISSING
    await change(database, key, {"roles": frozenset({Role.EDITOR})})
    clock.advance(CACHE_LIFETIME)
    assert (await called(api, create, b"", authorized(key))).code is grpc.StatusCode.INVALID_ARGUMENT
    ending = await watch(api, key)
    clock.advance(timedelta(hours=1))
    error = await end_of(ending)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "has expired" in str(error.details())
    assert (await called(api, create, b"", authorized(key))).code is grpc.StatusCode.UNAUTHENTICATED


async def test_last_use_of_a_key_is_noted(api: Running, database: Database, clock: ManualClock) -> None:
    used, unused = [await create_key(database, Role.READER) for _ in range(2)]
    get = "/tidemark.v1.AlertService/ListAlerts"
    assert (await called(api, get, b"", authorized(used))).code is grpc.StatusCode.OK
    last_use = clock.now()
    clock.advance(USES_INTERVAL)

    async def uses() -> dict[str, datetime | None]:
        async with database.transaction() as connection:
            return {one.key_id: one.last_use_time for one in await keys.list_keys(connection)}

    async with within("the use of the key"):
        while True:
            found = await uses()
            if found[used.key_id] is not None:
                break
            await asyncio.sleep(0.01)
    assert found == {used.key_id: last_use, unused.key_id: None}


async def test_use_of_a_key_whose_row_is_locked_is_noted_later_and_the_stream_of_another_ends(
    api: Running, database: Database, clock: ManualClock
) -> None:
    locked, lowered = await create_key(database, Role.READER), await create_key(database, Role.READER)
    ending = await watch(api, lowered)
    get = "/tidemark.v1.AlertService/ListAlerts"
    assert (await called(api, get, b"", authorized(locked))).code is grpc.StatusCode.OK
    async with database.transaction() as connection:
        await change(database, lowered, {"roles": frozenset({Role.INGESTER})})
        assert await update_key(connection, "acme", locked.key_id, {"display_name": "held"}) is not None
        clock.advance(USES_INTERVAL)
        assert reason_of(await end_of(ending)) == ROLE_MISSING

    async def last_use() -> datetime | None:
        async with database.transaction() as connection:
            [found] = [one for one in await keys.list_keys(connection) if one.key_id == locked.key_id]
            return found.last_use_time

    async with within("the use of the key"):
        while await last_use() is None:
            clock.advance(USES_INTERVAL)
            await asyncio.sleep(0.01)


async def test_rotated_key_has_the_same_settings_and_the_old_one_expires(
    api: Running, database: Database, clock: ManualClock
) -> None:
    old = await create_key(
        database, Role.READER, customer_id="bob", display_name="pages", expire_time=NOW + timedelta(days=90)
    )
    async with database.transaction() as connection:
        assert await rotate_key(connection, "other", old.key_id, NOW, timedelta(hours=1)) is None
        new = await rotate_key(connection, "acme", old.key_id, NOW + timedelta(days=30), timedelta(hours=1))
    assert new is not None
    assert new.settings == KeySettings(frozenset({Role.READER}), "bob", "pages", NOW + timedelta(days=120))
    assert new.predecessor_expire_time == NOW + timedelta(days=30, hours=1)
    method = "/tidemark.v1.AccountService/GetCustomer"
    for key in (old, new.key):
        assert (await called(api, method, b"\n\x03bob", authorized(key))).code is grpc.StatusCode.NOT_FOUND
    clock.advance(timedelta(days=30, hours=1))
    assert (await called(api, method, b"\n\x03bob", authorized(old))).code is grpc.StatusCode.UNAUTHENTICATED
    assert (await called(api, method, b"\n\x03bob", authorized(new.key))).code is grpc.StatusCode.NOT_FOUND


def test_commands_create_update_and_rotate_limited_keys(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(tidemark, ["keys", *arguments])
        return result.exit_code, result.stdout, result.stderr

    of_acme = ("--organization", "acme")
    code, key, _ = run("create", *of_acme, "--role", "reader", "--role", "ingester", "--display-name", "collector")
    assert (code, key.startswith("tmk_")) == (0, True)
    [line] = run("list")[1].splitlines()[1:]
    key_id = line.split()[0]
    assert line.split()[1:4] == ["acme", "collector", "ingester,reader"]

    code, _, problem = run("create", *of_acme, "--customer", "bob")
    assert code == 2
    assert "add --role reader" in problem
    code, _, problem = run("update", *of_acme, key_id, "--customer", "bob")
    assert code == 2
    assert "add --role reader" in problem
    assert run("update", *of_acme, key_id, "--customer", "bob", "--role", "reader", "--expires-in", "30d")[0] == 0
    assert "reader of bob" in run("list")[1]
    assert run("update", *of_acme, key_id)[0] == 2
    for customer in ("", " ", "a\x01b"):
        code, _, problem = run("create", *of_acme, "--role", "reader", "--customer", customer)
        assert (code, "no id of a customer" in problem) == (2, True)
        assert run("update", *of_acme, key_id, "--customer", customer)[0] == 2
    assert run("create", *of_acme, "--identity", "")[0] == 2
    assert run("update", "--organization", "other", key_id, "--role", "admin")[0] == 1

    code, successor, shown = run("rotate", *of_acme, key_id, "--overlap", "0s")
    assert "expires, too" in shown
    assert (code, successor.startswith("tmk_"), successor != key) == (0, True, True)
    assert run("list")[1].count("reader of bob") == 2
    code, _, problem = run("rotate", *of_acme, key_id)
    assert code == 1
    assert "has no key" in problem


async def test_unchanged_key_is_the_same_object_at_each_check(database: Database) -> None:
    key = await create_key(database, Role.READER, customer_id="bob")

    async def read() -> Caller:
        async with database.transaction() as connection:
            return (await callers_of(connection, [key.key_id]))[key.key_id]

    before = await read()
    assert await read() is before, "each check would review all streams of the key again"
    await change(database, key, {"customer_id": "ann"})
    assert (await read()).customer_id == "ann"
