"""The stream of the audit log: nothing is skipped, whatever order transactions commit in, and on any server."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from generated.tidemark.v1 import account_service_pb2, plan_pb2
from generated.tidemark.v1.audit_service_pb2 import WatchAuditEntriesRequest
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.calls.validation import to_timestamp
from server.limits import ServerLimits
from store.audit import log, numbering, writing
from store.audit.entries import SERVER, Changed, NewEntry, ResourceType
from store.identity.key_changes import update_key
from store.identity.roles import Role
from store.postgres.database import Database, driver
from tests.support.audit.api import AuditedApi, AuditedCaller
from tests.support.server.running import UNARY_DEADLINE, reason_of, running

LIMIT = 60.0  # seconds, of everything that is waited for


async def put_plan(caller: AuditedCaller, plan_id: str) -> None:
    request = account_service_pb2.PutPlanRequest(plan=plan_pb2.Plan(plan_id=plan_id))
    await caller.accounts.PutPlan(request)


class Watch:
    """A stream of entries. token: of its last answer."""

    def __init__(self, caller: AuditedCaller, **request: Any) -> None:
        self._call: Any = caller.audit.WatchAuditEntries(WatchAuditEntriesRequest(**request))
        self.token = ""

    async def answer(self) -> Any:
        async with asyncio.timeout(LIMIT):
            answer = await self._call.read()
        assert answer is not grpc.aio.EOF
        self.token = answer.resume_token
        return answer

    async def begin(self) -> "Watch":
        assert (await self.answer()).heartbeat
        return self

    async def ids(self, count: int) -> list[str]:
        """The resources of the next entries."""
        found: list[str] = []
        while len(found) < count:
            answer = await self.answer()
            if not answer.heartbeat:
                found.append(answer.entry.resource_id)
        return found

    async def error(self) -> grpc.aio.AioRpcError:
        try:
            while True:
                await self.answer()
        except grpc.aio.AioRpcError as error:
            return error

    def cancel(self) -> None:
        self._call.cancel()


async def test_stream_sends_entries_in_the_order_of_their_numbers(api: AuditedApi) -> None:
    await put_plan(api.ours, "before")
    watch = await Watch(api.ours).begin()
    await put_plan(api.theirs, "theirs")
    for number in range(130):
        await put_plan(api.ours, f"p{number}")
    assert await watch.ids(130) == [f"p{number}" for number in range(130)]
    watch.cancel()


async def test_stream_continues_after_its_token_on_any_server(
    api: AuditedApi, database: Database, clock: ManualClock
) -> None:
    watch = await Watch(api.ours, resource_id="b").begin()
    for plan_id in ("a", "b", "c"):
        await put_plan(api.ours, plan_id)
    assert await watch.ids(1) == ["b"]
    token = watch.token
    watch.cancel()
    await api.ours.accounts.DeletePlan(account_service_pb2.DeletePlanRequest(plan_id="b"))
    async with running(database, clock, server_limits=ServerLimits(audit_poll_interval=0.02)) as second:
        elsewhere = AuditedCaller(second, api.ours.key)
        again = Watch(elsewhere, resource_id="b", resume_token=token)
        assert await again.ids(1) == ["b"]
        again.cancel()
        for request in ({"resume_token": token}, {"resume_token": "x"}):
            refused = await Watch(elsewhere, **request).error()
            assert reason_of(refused) == "ERROR_REASON_RESUME_TOKEN_INVALID"
        others = await Watch(api.theirs, resource_id="b", resume_token=token).error()
        assert reason_of(others) == "ERROR_REASON_RESUME_TOKEN_INVALID"


async def test_stream_begins_at_its_start_time(api: AuditedApi, clock: ManualClock) -> None:
    await put_plan(api.ours, "a")
    clock.advance(timedelta(minutes=1))
    start = clock.now()
    await put_plan(api.ours, "b")
    watch = await Watch(api.ours, start_time=to_timestamp(start)).begin()
    assert await watch.ids(1) == ["b"]
    watch.cancel()


async def test_stream_that_begins_with_a_time_has_the_entry_that_comes_while_its_place_is_found(
    api: AuditedApi, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes just before the last number is read: the place is before it, although no entry was of that time."""
    organization_id, extent = api.ours.organization_id, log.extent
    await put_plan(api.ours, "a")
    clock.advance(timedelta(minutes=1))

    async def extent_after_an_entry(connection: AsyncConnection, number: int) -> log.Extent:
        await put_plan(api.ours, "b")
        async with numbering.reading(database, organization_id):
            return await extent(connection, number)

    async with numbering.reading(database, organization_id) as connection:
        before = (await extent(connection, organization_id)).last_number
    monkeypatch.setattr(log, "extent", extent_after_an_entry)
    async with database.transaction() as connection:
        assert await log.number_before(connection, organization_id, clock.now()) == before


@pytest.mark.parametrize("turn", range(3))
async def test_entry_of_a_transaction_that_commits_late_is_not_skipped(
    api: AuditedApi, database: Database, clock: ManualClock, turn: int
) -> None:
    """The open transactions write before the others and commit after them, each with a lower `arrival`."""
    watch = await Watch(api.ours).begin()

    async with AsyncExitStack() as stack:
        released = asyncio.Event()

        async def write_and_wait(name: str, written: asyncio.Event) -> None:
            async with database.transaction() as connection:
                entry = NewEntry(SERVER, Changed(ResourceType.PLAN, name))
                await writing.write(await driver(connection), api.ours.organization_id, [entry], clock.now())
                written.set()
                await released.wait()

        written = [asyncio.Event() for _ in range(3)]
        tasks = [asyncio.create_task(write_and_wait(f"late{number}", one)) for number, one in enumerate(written)]
        stack.callback(released.set)
        await asyncio.gather(*(one.wait() for one in written))
        await put_plan(api.ours, "early1")
        assert await watch.ids(1) == ["early1"]
        await put_plan(api.ours, "early2")
        assert await watch.ids(1) == ["early2"]
        token = watch.token
        released.set()
        await asyncio.gather(*tasks)
    assert sorted(await watch.ids(3)) == ["late0", "late1", "late2"]
    watch.cancel()
    again = Watch(api.ours, resume_token=token)
    assert sorted(await again.ids(3)) == ["late0", "late1", "late2"]
    again.cancel()
    assert [entry.entry_number for entry in await api.ours.entries()] == [1, 2, 3, 4, 5]


async def test_many_writers_and_two_watchers_see_one_gapless_order(api: AuditedApi, database: Database) -> None:
    async with running(database, api.clock, server_limits=ServerLimits(audit_poll_interval=0.02)) as second:
        elsewhere = AuditedCaller(second, api.ours.key)
        watches = [await Watch(api.ours).begin(), await Watch(elsewhere).begin()]

        async def write(caller: AuditedCaller, first: int) -> None:
            for number in range(first, 60, 10):
                await put_plan(caller, f"p{number}")

        await asyncio.gather(*(write((api.ours, elsewhere)[first % 2], first) for first in range(10)))
        seen = [await watch.ids(60) for watch in watches]
        for watch in watches:
            watch.cancel()
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == sorted(f"p{number}" for number in range(60))


async def test_stream_sends_heartbeats_and_ends_with_the_server(database: Database, clock: ManualClock) -> None:
    configuration = Configuration(listen_port=0, propagation_delay=0.0, unary_deadline=UNARY_DEADLINE, heartbeat=0.05)
    async with running(database, clock, configuration=configuration) as server:
        api = await AuditedApi.open(server, database, clock)
        watch = await Watch(api.ours).begin()
        assert (await watch.answer()).heartbeat
        server.shutdown.request()
        async with asyncio.timeout(LIMIT):
            while not (await watch.answer()).going_away:
                pass
            assert await watch._call.read() is grpc.aio.EOF


async def test_stream_ends_when_its_key_loses_the_role(api: AuditedApi, database: Database) -> None:
    watch = await Watch(api.ours).begin()
    async with database.transaction() as connection:
        roles = {"roles": frozenset({Role.EDITOR})}
        assert await update_key(connection, "ours", api.ours.key.key_id, roles) is not None
    refused = await watch.error()
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_too_many_streams_of_one_organization_are_refused(database: Database, clock: ManualClock) -> None:
    configuration = Configuration(
        listen_port=0, propagation_delay=0.0, unary_deadline=UNARY_DEADLINE, organization_watchers=2
    )
    async with running(database, clock, configuration=configuration) as server:
        api = await AuditedApi.open(server, database, clock)
        open_ones = [await Watch(api.ours).begin() for _ in range(2)]
        refused = await Watch(api.ours).error()
        assert reason_of(refused) == "ERROR_REASON_TOO_MANY_WATCHERS"
        theirs = await Watch(api.theirs).begin()
        for watch in (*open_ones, theirs):
            watch.cancel()
