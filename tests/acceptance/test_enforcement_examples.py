"""The client code of examples/enforcement against a real server, also while the server is killed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import grpc
import pytest

from examples.enforcement.cached_checks import CachedChecks
from examples.enforcement.guard import Guard
from generated.tidemark.v1 import (
    decision_pb2,
    reservation_pb2,
)
from tests.support.enforcement.stage import TOKENS, Stage, stage_on
from tests.support.processes.programs import DEADLINE, Program, Programs
from tests.support.waiting import within


class WorkFailed(Exception):
    """The work of a test failed."""


@asynccontextmanager
async def guard_of(stage: Stage, **options: Any) -> AsyncIterator[Guard]:
    """A guard that waits long for decisions, because other tests may keep this machine busy.

    All of its reports are acknowledged at the end of the block.
    """
    settings = {"fail_open": False, "decision_seconds": DEADLINE, "try_seconds": DEADLINE, **options}
    guard = Guard(stage.channel, stage.key, **settings)
    yield guard
    assert await guard.reports.drain(DEADLINE) == 0


@pytest.fixture
async def stage(programs: Programs) -> AsyncIterator[Stage]:
    """A server, and a limit of 500 tokens."""
    async with stage_on(programs) as stage:
        yield stage


async def test_work_is_reserved_and_what_it_used_is_counted(stage: Stage) -> None:
    async with guard_of(stage) as guard, guard.reserve("acme", TOKENS, Decimal(100)) as grant:
        assert (grant.allowed, grant.decided, grant.quantity) == (True, True, Decimal(100))
        assert await stage.state() == ("0", "100", "400")
        grant.used = Decimal("37.5")
    assert await stage.state() == ("37.5", "0", "462.5")


async def test_work_that_does_not_fit_is_denied_with_a_reason(stage: Stage) -> None:
    async with guard_of(stage) as guard:
        async with guard.reserve("acme", TOKENS, Decimal(501)) as grant:
            assert (grant.allowed, grant.decided, grant.quantity) == (False, True, Decimal(0))
            assert (grant.limit_id, grant.retry_after) == (TOKENS, None)
        async with guard.reserve("acme", TOKENS, Decimal(400)), guard.reserve("acme", TOKENS, Decimal(400)) as grant:
            assert (grant.allowed, grant.retry_after) == (False, 1.0)
    assert await stage.state() == ("400", "0", "100")


async def test_many_guards_at_once_admit_exactly_what_fits(stage: Stage) -> None:
    begun = asyncio.Semaphore(0)
    end = asyncio.Event()
    admitted = 0

    async def one(guard: Guard) -> None:
        nonlocal admitted
        async with guard.reserve("acme", TOKENS, Decimal(75)) as grant:
            admitted += grant.allowed
            begun.release()
            await end.wait()

    async with guard_of(stage) as first, guard_of(stage) as second:
        tasks = [asyncio.create_task(one(guard)) for guard in (first, second) for _ in range(10)]
        async with within("the decisions", DEADLINE):
            for _ in tasks:
                await begun.acquire()
        assert (admitted, await stage.state()) == (6, ("0", "450", "50"))
        end.set()
        await asyncio.gather(*tasks)
    assert await stage.state() == ("450", "0", "50")


async def fail(guard: Guard, reservation_id: str, used: Decimal | None = None, server: Program | None = None) -> None:
    """Work that fails after it has used so much. server: is started meanwhile."""
    async with guard.reserve("acme", TOKENS, Decimal(100), reservation_id) as grant:
        if server is not None:
            await server.start()
        grant.used = used
        raise WorkFailed


async def test_work_that_fails_is_released_or_counted_as_far_as_it_came(stage: Stage) -> None:
    async with guard_of(stage) as guard:
        with pytest.raises(WorkFailed):
            await fail(guard, "unused")
        with pytest.raises(WorkFailed):
            await fail(guard, "half", Decimal(50))
    assert await stage.state() == ("50", "0", "450")
    assert (await stage.reservation("unused")).state == reservation_pb2.RESERVATION_STATE_RELEASED
    assert (await stage.reservation("half")).state == reservation_pb2.RESERVATION_STATE_SETTLED


async def test_work_that_takes_longer_than_the_ttl_extends_its_reservation(stage: Stage) -> None:
    async with guard_of(stage, ttl=6.0) as guard, guard.reserve("acme", TOKENS, Decimal(100), "long") as grant:
        first = (await stage.reservation("long")).expire_time.ToDatetime()
        async with within("an extension", DEADLINE):
            while (found := await stage.reservation("long")).expire_time.ToDatetime() == first:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert found.state == reservation_pb2.RESERVATION_STATE_OPEN
        grant.used = Decimal(10)
    assert await stage.state() == ("10", "0", "490")


async def test_settlement_and_release_wait_for_a_server_that_was_killed(stage: Stage) -> None:
    async with guard_of(stage) as guard:
        async with guard.reserve("acme", TOKENS, Decimal(100), "kept") as grant:
            await stage.server.killed()
            grant.used = Decimal(60)
        async with guard_of(stage, decision_seconds=0.2, fail_open=True) as other:
            with pytest.raises(WorkFailed):
                await fail(other, "lost", server=stage.server)
    assert await stage.state() == ("60", "0", "440")
    assert (await stage.reservation("kept")).state == reservation_pb2.RESERVATION_STATE_SETTLED


async def test_decision_waits_for_a_server_that_is_started_in_time(stage: Stage) -> None:
    await stage.server.killed()

    async def work(guard: Guard) -> bool:
        async with guard.reserve("acme", TOKENS, Decimal(100)) as grant:
            return grant.decided and grant.allowed

    async with guard_of(stage, try_seconds=1.0) as guard:
        working = asyncio.create_task(work(guard))
        await stage.server.start()
        assert await working
    assert await stage.state() == ("100", "0", "400")


async def test_guard_that_fails_closed_admits_nothing_without_a_server(stage: Stage) -> None:
    await stage.server.killed()
    async with guard_of(stage, decision_seconds=0.3) as guard:
        async with guard.reserve("acme", TOKENS, Decimal(1)) as grant:
            assert (grant.allowed, grant.decided) == (False, False)
        await stage.server.start()
    assert await stage.state() == ("0", "0", "500")


async def test_guard_that_fails_open_counts_what_passed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await stage.server.killed()
    async with guard_of(stage, decision_seconds=0.3, fail_open=True) as guard:
        async with guard.reserve("acme", TOKENS, Decimal(600)) as grant:
            assert (grant.allowed, grant.decided, grant.quantity) == (True, False, Decimal(600))
        await stage.server.start()
    assert await stage.state() == ("600", "0", "-100")
    assert "acme is over its limit tokens" in caplog.text


async def test_usage_of_a_lost_decision_settles_the_reservation_that_was_made(stage: Stage) -> None:
    """The server decided, and the answer was lost: the event of a guard that fails open ends the reservation."""
    async with guard_of(stage) as guard, guard.reserve("acme", TOKENS, Decimal(100), "made") as grant:
        grant.decided = False  # as if the answer had been lost
        grant.used = Decimal(40)
    assert await stage.state() == ("40", "0", "460")
    assert (await stage.reservation("made")).state == reservation_pb2.RESERVATION_STATE_SETTLED


async def test_mistake_is_raised_also_by_a_guard_that_fails_open(stage: Stage) -> None:
    async with guard_of(stage, fail_open=True) as guard:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with guard.reserve("acme", "", Decimal(1)):
                raise AssertionError
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    nameless = CachedChecks(stage.channel, stage.key, "", fail_open=True, check_seconds=DEADLINE)
    stranger = CachedChecks(stage.channel, "wrong", TOKENS, fail_open=True, check_seconds=DEADLINE)
    for checks, code in (
        (nameless, grpc.StatusCode.INVALID_ARGUMENT),
        (stranger, grpc.StatusCode.UNAUTHENTICATED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await checks.may_use("acme")
        assert raised.value.code() is code


async def test_id_of_another_request_is_an_error_and_leaves_that_request_alone(stage: Stage) -> None:
    async with guard_of(stage) as guard, guard.reserve("acme", TOKENS, Decimal(100), "same") as grant:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with guard.reserve("acme", TOKENS, Decimal(50), "same"):
                raise AssertionError
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert await guard.reports.drain(DEADLINE) == 0
        assert (await stage.reservation("same")).state == reservation_pb2.RESERVATION_STATE_OPEN
        grant.used = Decimal(1)
    assert await stage.state() == ("1", "0", "499")


async def test_policy_cap_grants_a_part(stage: Stage) -> None:
    capped = decision_pb2.USAGE_OVERAGE_POLICY_CAP
    async with guard_of(stage, policy=capped) as guard, guard.reserve("acme", TOKENS, Decimal(700)) as grant:
        assert (grant.allowed, grant.quantity) == (True, Decimal(500))
        grant.used = Decimal(10)
    assert await stage.state() == ("10", "0", "490")


async def test_cached_check_is_as_old_as_it_may_be_and_no_older(stage: Stage) -> None:
    young = CachedChecks(stage.channel, stage.key, TOKENS, fail_open=False, max_age=0.0, check_seconds=DEADLINE)
    old = CachedChecks(stage.channel, stage.key, TOKENS, fail_open=False, max_age=3_600.0, check_seconds=DEADLINE)
    assert await asyncio.gather(*(old.may_use(name) for name in ("acme", "acme", "other"))) == [True] * 3
    assert await young.may_use("acme")
    await stage.use("e-1", "500")
    assert not await young.may_use("acme")
    # The answer of Tidemark is valid for 5 seconds, whatever max_age allows.
    async with within("a new answer", DEADLINE):
        while await old.may_use("acme"):  # noqa: ASYNC110 (the time has to pass)
            await asyncio.sleep(0.1)
    assert await old.may_use("other")


async def test_cached_check_without_a_server_uses_the_last_answer_and_then_its_policy(stage: Stage) -> None:
    def checks(**options: Any) -> CachedChecks:
        return CachedChecks(stage.channel, stage.key, TOKENS, max_age=0.0, check_seconds=DEADLINE, **options)

    await stage.use("e-1", "500")
    stale = checks(fail_open=True, max_stale=3_600.0)
    assert not await stale.may_use("acme")
    await stage.server.killed()
    assert not await stale.may_use("acme")
    assert await stale.may_use("never asked")
    assert not await checks(fail_open=False, max_stale=0.0).may_use("acme")
    assert await checks(fail_open=True, max_stale=0.0).may_use("acme")
