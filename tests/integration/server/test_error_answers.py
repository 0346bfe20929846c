"""The errors that a client receives: a precise status without internal details."""

import asyncio
import logging
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.calls.answer_size import CLIENT_LIMIT
from store.postgres.database import Database
from tests.support.server.odd_service import NAME, SECRET, OddClient, OddService
from tests.support.server.running import Running, reason_of, running, status_of, violations_of

LIMIT = Configuration().max_message_bytes


def assert_internal(error: grpc.aio.AioRpcError) -> None:
    assert error.code() is grpc.StatusCode.INTERNAL
    assert reason_of(error) == "ERROR_REASON_INTERNAL"
    assert SECRET not in str(status_of(error)) + str(error.trailing_metadata()) + str(error.details())


async def test_an_exception_of_a_unary_handler_does_not_leak(
    odd: OddClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("Fail")("x", metadata=(("x-request-id", "req-1"),))
    assert_internal(raised.value)
    assert "req-1" in str(raised.value.details())
    assert SECRET in caplog.text  # the operator sees it


async def test_an_exception_in_a_stream_does_not_leak_and_keeps_the_answers_before(odd: OddClient) -> None:
    call = odd.stream("FailStream")()
    await call.write("first")
    assert await call.read() == "first"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert_internal(raised.value)


@pytest.mark.parametrize("request_text", ["", "one answer first"])
async def test_an_exception_in_a_server_stream_does_not_leak(odd: OddClient, request_text: str) -> None:
    call = odd.server_stream("FailServerStream")(request_text)
    if request_text:
        assert await call.read() == request_text
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert_internal(raised.value)


async def test_an_answer_of_the_wrong_type_does_not_leak(odd: OddClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("AnswerNonsense")("x")
    assert_internal(raised.value)


async def test_a_lost_database_is_unavailable(odd: OddClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("LoseDatabase")("x")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(raised.value) == "ERROR_REASON_DATABASE_UNAVAILABLE"
    assert SECRET not in str(status_of(raised.value))


async def test_an_error_in_a_stream_is_complete_and_follows_the_answers_before_it(odd: OddClient) -> None:
    call = odd.stream("RefuseStream")()
    await call.write("good")
    assert await call.read() == "good"
    await call.write("bad")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(raised.value) == ["value"]


@pytest.mark.parametrize("method", [f"/{NAME}/Nope", "/tidemark.v1.NoService/Get", "/x", f"/{NAME}/"])
async def test_an_unknown_method_is_unimplemented(odd_server: Running, method: str) -> None:
    channel: Any = odd_server.channel
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(method)(b"rubbish")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(raised.value) == "ERROR_REASON_METHOD_UNKNOWN"
    assert await channel.stream_stream(method)().code() is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_cannot_be_decoded_are_refused(odd_server: Running) -> None:
    channel: Any = odd_server.channel
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(f"/{NAME}/WhoAmI")(b"\xff\xff\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == "ERROR_REASON_MALFORMED_MESSAGE"
    call = channel.stream_stream(f"/{NAME}/WhoAmIStream")()
    await call.write(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert reason_of(raised.value) == "ERROR_REASON_MALFORMED_MESSAGE"


async def test_a_message_at_the_limit_is_accepted(odd: OddClient) -> None:
    overhead = 5  # tag, and length in 4 bytes
    call = odd.stream("RefuseStream")()
    await call.write("x" * (LIMIT - overhead))
    assert len(await call.read()) == LIMIT - overhead
    await call.done_writing()


async def test_a_message_above_the_limit_is_refused_with_a_reason(odd: OddClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("WhoAmI")("x" * LIMIT)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(raised.value) == "ERROR_REASON_MESSAGE_TOO_LARGE"
    call = odd.stream("RefuseStream")()
    await call.write("x" * LIMIT)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert reason_of(raised.value) == "ERROR_REASON_MESSAGE_TOO_LARGE"


async def test_an_answer_at_the_limit_of_clients_is_sent(odd: OddClient) -> None:
    overhead = 5  # tag, and length in 4 bytes
    assert len(await odd.unary("AnswerLong")(str(CLIENT_LIMIT - overhead))) == CLIENT_LIMIT - overhead


async def test_an_answer_above_the_limit_of_clients_is_an_error_with_a_reason(
    odd: OddClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("AnswerLong")(str(CLIENT_LIMIT))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert reason_of(raised.value) == "ERROR_REASON_ANSWER_TOO_LARGE"
    assert "longer than clients accept" in caplog.text
    call = odd.stream("AnswerLongStream")()
    await call.write("3")
    assert await call.read() == "xxx"
    await call.write(str(CLIENT_LIMIT))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert reason_of(raised.value) == "ERROR_REASON_ANSWER_TOO_LARGE"


async def test_a_message_far_above_the_limit_is_refused_by_grpc(odd: OddClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("WhoAmI")("x" * (3 * LIMIT))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await odd.unary("WhoAmI")("still there")


async def test_huge_metadata_is_refused_and_the_server_goes_on(odd: OddClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("WhoAmI")("x", metadata=(("x-big", "x" * 100_000),))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await odd.unary("WhoAmI")("still there")


async def test_a_unary_call_without_a_deadline_gets_one(
    database: Database, clock: ManualClock, odd_service: OddService
) -> None:
    short = Configuration(listen_port=0, propagation_delay=0.0, unary_deadline=0.05)
    async with running(database, clock, odd_service.register, short) as server:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await OddClient(server.channel).unary("Hang")("x")
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason_of(raised.value) == "ERROR_REASON_DEADLINE_EXCEEDED"
    assert odd_service.cancelled.is_set()


async def test_a_stream_gets_no_deadline(database: Database, clock: ManualClock, odd_service: OddService) -> None:
    short = Configuration(listen_port=0, propagation_delay=0.0, unary_deadline=0.05)
    async with running(database, clock, odd_service.register, short) as server:
        call = OddClient(server.channel).stream("RefuseStream")()
        await call.write("one")
        assert await call.read() == "one"
        await asyncio.sleep(0.15)
        await call.write("two")
        assert await call.read() == "two"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_a_callers_deadline_cancels_the_handler(odd: OddClient, odd_service: OddService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("Hang")("x", timeout=0.1)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await odd_service.cancelled.wait()


@pytest.mark.parametrize("timeout", [None, 0.2])
async def test_a_deadline_ends_the_statement_in_the_database_too(
    database: Database, clock: ManualClock, odd_service: OddService, timeout: float | None
) -> None:
    short = Configuration(listen_port=0, propagation_delay=0.0, unary_deadline=0.2)
    async with running(database, clock, odd_service.register, short) as server:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await OddClient(server.channel).unary("SleepInDatabase")("x", timeout=timeout)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert odd_service.started.is_set()
        sleeping = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND query = 'SELECT pg_sleep(3600)'"
        )

        async def still_sleeping() -> bool:
            # A new transaction each time: within one, PostgreSQL keeps the activity of the first read.
            async with database.transaction() as connection:
                return bool(await connection.scalar(sleeping))

        while await still_sleeping():  # noqa: ASYNC110 (PostgreSQL has no event for it)
            await asyncio.sleep(0.02)


async def test_a_cancelled_stream_cancels_its_handler(
    odd: OddClient, odd_service: OddService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    call = odd.stream("HangStream")()
    await call.write("x")
    assert await call.read() == "x"
    await odd_service.started.wait()
    call.cancel()
    await odd_service.cancelled.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
