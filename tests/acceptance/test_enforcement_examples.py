"""The Python client's guard and cached checks, and the gateway of examples/enforcement, while servers are killed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import grpc
import pytest

from examples.enforcement.guard import MAX_TOKENS, Completion, complete
from generated.tidemark.v1 import (
    decision_pb2,
    reservation_pb2,
)
from tests.support.enforcement.stage import TOKENS, Stage, stage_of
from tests.support.processes.programs import DEADLINE, Program, Programs
from tests.support.waiting import within
from tidemark_client import AsyncCachedChecks, AsyncGuard, CheckOptions, Client, GuardOptions, TidemarkError
from tidemark_client.connection.target import Metadata


class WorkFailed(Exception):
    """The work of a test failed."""


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


def checks_of(
    stage: Stage, *, key: str = "", metric_id: str = TOKENS, fail_open: bool = False, **options: Any
) -> AsyncCachedChecks:
    """Checks that wait long for an answer."""
    settings = CheckOptions(fail_open=fail_open, check_seconds=DEADLINE, **options)
    return AsyncCachedChecks(stage.channel, bearer(key or stage.key), metric_id, settings)


@asynccontextmanager
async def guard_of(stage: Stage, **options: Any) -> AsyncIterator[AsyncGuard]:
    """A guard that waits long for decisions, because other tests may keep this machine busy.

    All of its reports are acknowledged at the end of the block.
    """
    settings = {"fail_open": False, "decision_seconds": DEADLINE, "try_seconds": DEADLINE, **options}
    guard = AsyncGuard(stage.channel, bearer(stage.key), GuardOptions(**settings))
    yield guard
    assert await guard.reports.drain(DEADLINE) == 0


@pytest.fixture(scope="module")
async def server(module_programs: Programs) -> Program:
    """The server of all tests. A test may kill it."""
    return await module_programs.serve()


@pytest.fixture
async def stage(server: Program, module_programs: Programs, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """An organization of the test's own on the server, which runs, and a limit of 500 tokens."""
    if not server.running:
        await server.start()
    async with stage_of(request.node.name, server, module_programs.url) as stage:
        yield stage


async def test_work_is_reserved_and_what_it_used_is_counted(stage: Stage) -> None:
    async with guard_of(stage) as guard, guard.reserve("acme", TOKENS, Decimal(100)) as grant:
        assert (grant.allowed, grant.decided, grant.quantity) == (True, True, Decimal(100))
        assert await stage.state() == ("0", "100", "400")
        grant.settle("37.5")
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

    async def one(guard: AsyncGuard) -> None:
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


async def fail(
    guard: AsyncGuard, reservation_id: str, used: Decimal | None = None, server: Program | None = None
) -> None:
    """Work that fails after it has used so much. server: is started meanwhile."""
    async with guard.reserve("acme", TOKENS, Decimal(100), reservation_id=reservation_id) as grant:
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
    async with (
        guard_of(stage, ttl=6.0) as guard,
        guard.reserve("acme", TOKENS, Decimal(100), reservation_id="long") as grant,
    ):
        first = (await stage.reservation("long")).expire_time.ToDatetime()
        async with within("an extension", DEADLINE):
            while (found := await stage.reservation("long")).expire_time.ToDatetime() == first:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert found.state == reservation_pb2.RESERVATION_STATE_OPEN
        grant.settle(10)
    assert await stage.state() == ("10", "0", "490")


async def test_settlement_and_release_wait_for_a_server_that_was_killed(stage: Stage) -> None:
    async with guard_of(stage) as guard:
        async with guard.reserve("acme", TOKENS, Decimal(100), reservation_id="kept") as grant:
            await stage.server.killed()
            grant.settle(60)
        async with guard_of(stage, decision_seconds=0.2, fail_open=True) as other:
            with pytest.raises(WorkFailed):
                await fail(other, "lost", server=stage.server)
    assert await stage.state() == ("60", "0", "440")
    assert (await stage.reservation("kept")).state == reservation_pb2.RESERVATION_STATE_SETTLED


async def test_decision_waits_for_a_server_that_is_started_in_time(stage: Stage) -> None:
    await stage.server.killed()

    async def work(guard: AsyncGuard) -> bool:
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
    async with guard_of(stage) as guard, guard.reserve("acme", TOKENS, Decimal(100), reservation_id="made") as grant:
        grant.decided = False  # as if the answer had been lost
        grant.settle(40)
    assert await stage.state() == ("40", "0", "460")
    assert (await stage.reservation("made")).state == reservation_pb2.RESERVATION_STATE_SETTLED


async def test_mistake_is_raised_also_by_a_guard_that_fails_open(stage: Stage) -> None:
    async with guard_of(stage, fail_open=True) as guard:
        with pytest.raises(TidemarkError) as raised:
            async with guard.reserve("acme", "", Decimal(1)):
                raise AssertionError
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    nameless = checks_of(stage, metric_id="", fail_open=True)
    stranger = checks_of(stage, key="wrong", fail_open=True)
    for checks, code in (
        (nameless, grpc.StatusCode.INVALID_ARGUMENT),
        (stranger, grpc.StatusCode.UNAUTHENTICATED),
    ):
        with pytest.raises(TidemarkError) as raised:
            await checks.may_use("acme")
        assert raised.value.code() is code


async def test_id_of_another_request_is_an_error_and_leaves_that_request_alone(stage: Stage) -> None:
    async with guard_of(stage) as guard, guard.reserve("acme", TOKENS, Decimal(100), reservation_id="same") as grant:
        with pytest.raises(TidemarkError) as raised:
            async with guard.reserve("acme", TOKENS, Decimal(50), reservation_id="same"):
                raise AssertionError
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert await guard.reports.drain(DEADLINE) == 0
        assert (await stage.reservation("same")).state == reservation_pb2.RESERVATION_STATE_OPEN
        grant.settle(1)
    assert await stage.state() == ("1", "0", "499")


async def test_policy_cap_grants_a_part(stage: Stage) -> None:
    capped = decision_pb2.USAGE_OVERAGE_POLICY_CAP
    async with guard_of(stage, policy=capped) as guard, guard.reserve("acme", TOKENS, Decimal(700)) as grant:
        assert (grant.allowed, grant.quantity) == (True, Decimal(500))
        grant.settle(10)
    assert await stage.state() == ("10", "0", "490")


async def test_cached_check_is_as_old_as_it_may_be_and_no_older(stage: Stage) -> None:
    young = checks_of(stage, max_age=0.0)
    old = checks_of(stage, max_age=3_600.0)
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
    def checks(**options: Any) -> AsyncCachedChecks:
        return checks_of(stage, max_age=0.0, **options)

    await stage.use("e-1", "500")
    stale = checks(fail_open=True, max_stale=3_600.0)
    assert not await stale.may_use("acme")
    await stage.server.killed()
    assert not await stale.may_use("acme")
    assert await stale.may_use("never asked")
    assert not await checks(fail_open=False, max_stale=0.0).may_use("acme")
    assert await checks(fail_open=True, max_stale=0.0).may_use("acme")


async def test_gateway_of_the_example_answers_while_tokens_are_left(stage: Stage) -> None:
    async def model(prompt: str, tokens: int) -> Completion:
        return Completion(prompt.upper(), min(tokens, 400))

    capped = decision_pb2.USAGE_OVERAGE_POLICY_CAP
    async with guard_of(stage, policy=capped) as guard:
        first = await complete(guard, "acme", "hello", model)
        assert (first.status, first.text) == (200, "HELLO")
        assert await guard.reports.drain(DEADLINE) == 0
        assert await stage.state() == ("400", "0", "100")
        assert (await complete(guard, "acme", "more", model)).status == 200
        assert await guard.reports.drain(DEADLINE) == 0
        assert (await complete(guard, "acme", "again", model)).status == 429
    assert await stage.state() == ("500", "0", "0")
    assert MAX_TOKENS > 500


async def test_threads_reserve_and_check(stage: Stage) -> None:
    def use() -> None:
        address = stage.server.address
        with (
            Client(address.server, api_key=stage.key) as client,
            client.guard(GuardOptions(decision_seconds=DEADLINE, try_seconds=DEADLINE)) as guard,
            client.cached_checks(TOKENS, CheckOptions(check_seconds=DEADLINE)) as checks,
        ):
            assert checks.may_use("acme")
            with guard.reserve("acme", TOKENS, 100) as hold:
                assert (hold.allowed, hold.quantity) == (True, Decimal(100))
                hold.settle("37.5")
            with guard.reserve("acme", TOKENS, 100) as hold:
                hold.release()
            with pytest.raises(WorkFailed), guard.reserve("acme", TOKENS, 100):
                raise WorkFailed
            with guard.reserve("acme", TOKENS, 501) as hold:
                assert not hold.allowed

    await asyncio.to_thread(use)
    assert await stage.state() == ("37.5", "0", "462.5")
