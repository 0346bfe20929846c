"""The request id and the access log: every call has both, however it ends."""

import asyncio
import logging
import re

import grpc
import pytest

from server.interceptors.access_log import logger
from tests.support.server.odd_service import NAME, OddClient, OddService
from tests.support.server.running import Running


@pytest.fixture(autouse=True)
def _every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger.name)


async def line_of(caplog: pytest.LogCaptureFixture, method: str) -> logging.LogRecord:
    """The one access log line of a method, which can be written after the client has its answer."""
    while True:
        lines = [record for record in caplog.records if getattr(record, "method", "") == method]
        if lines:
            (line,) = lines
            return line
        await asyncio.sleep(0.01)


def field(record: logging.LogRecord, name: str) -> object:
    return getattr(record, name)


async def test_the_callers_request_id_is_kept(odd: OddClient) -> None:
    call = odd.unary("WhoAmI")("", metadata=(("x-request-id", "my-id:1"),))
    assert await call == "default my-id:1"
    assert dict(await call.trailing_metadata())["x-request-id"] == "my-id:1"


async def test_a_call_without_a_request_id_gets_a_random_one(odd: OddClient) -> None:
    first = odd.unary("WhoAmI")("")
    second = odd.unary("WhoAmI")("")
    ids = [(await call).split()[1] for call in (first, second)]
    assert all(re.fullmatch(r"[0-9a-f]{24}", request_id) for request_id in ids)
    assert len(set(ids)) == 2
    assert dict(await first.trailing_metadata())["x-request-id"] == ids[0]


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129])
async def test_a_request_id_that_is_unfit_for_headers_and_logs_is_replaced(odd: OddClient, bad: str) -> None:
    answer = await odd.unary("WhoAmI")("", metadata=(("x-request-id", bad),))
    assert re.fullmatch(r"default [0-9a-f]{24}", answer)


async def test_an_error_carries_the_request_id_too(odd: OddClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await odd.unary("Fail")("", metadata=(("x-request-id", "r-1"),))
    assert dict(raised.value.trailing_metadata())["x-request-id"] == "r-1"


async def test_every_message_of_a_stream_is_handled_in_its_own_call(odd: OddClient) -> None:
    calls = [odd.stream("WhoAmIStream")(metadata=(("x-request-id", f"r-{number}"),)) for number in range(3)]
    for text in ("a", "b"):
        for call in calls:
            await call.write(text)
        answers = [await call.read() for call in calls]
        assert answers == [f"default r-{number} {text}" for number in range(3)]
    for call in calls:
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_a_call_is_logged_with_all_its_fields(odd: OddClient, caplog: pytest.LogCaptureFixture) -> None:
    await odd.unary("WhoAmI")("", metadata=(("x-request-id", "r-1"),))
    line = await line_of(caplog, f"/{NAME}/WhoAmI")
    assert line.levelno == logging.INFO
    assert line.getMessage() == f"/{NAME}/WhoAmI OK"
    assert (field(line, "action"), field(line, "code")) == ("call", "OK")
    assert (field(line, "organization"), field(line, "request_id")) == ("default", "r-1")
    milliseconds = field(line, "milliseconds")
    assert isinstance(milliseconds, float)
    assert milliseconds > 0
    assert str(field(line, "peer")).startswith("ipv4:127.0.0.1:")


async def test_a_fault_of_the_service_is_logged_as_an_error(odd: OddClient, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await odd.unary("Fail")("")
    line = await line_of(caplog, f"/{NAME}/Fail")
    assert (line.levelno, field(line, "code")) == (logging.ERROR, "INTERNAL")


async def test_a_fault_of_the_caller_is_not_logged_as_an_error(
    odd: OddClient, caplog: pytest.LogCaptureFixture
) -> None:
    call = odd.stream("RefuseStream")()
    await call.write("bad")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    line = await line_of(caplog, f"/{NAME}/RefuseStream")
    assert (line.levelno, field(line, "code")) == (logging.INFO, "INVALID_ARGUMENT")


async def test_health_checks_are_logged_at_debug(odd_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    await odd_server.health_of("")
    line = await line_of(caplog, "/grpc.health.v1.Health/Check")
    assert (line.levelno, field(line, "organization")) == (logging.DEBUG, None)


async def test_unknown_methods_are_logged(odd_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    method = f"/{NAME}/Nope"
    assert await odd_server.channel.stream_stream(method)().code() is grpc.StatusCode.UNIMPLEMENTED
    assert field(await line_of(caplog, method), "code") == "UNIMPLEMENTED"


async def test_a_call_cancelled_in_a_handlers_wait_is_logged_as_cancelled(
    odd: OddClient, odd_service: OddService, caplog: pytest.LogCaptureFixture
) -> None:
    call = odd.unary("Hang")("")
    await odd_service.started.wait()
    call.cancel()
    line = await line_of(caplog, f"/{NAME}/Hang")
    assert (line.levelno, field(line, "code")) == (logging.INFO, "CANCELLED")


async def test_a_stream_cancelled_in_the_middle_of_a_write_is_logged_as_cancelled(
    odd: OddClient, odd_service: OddService, caplog: pytest.LogCaptureFixture
) -> None:
    call = odd.server_stream("Flood")("")
    await call.read()
    await odd_service.started.wait()
    call.cancel()
    line = await line_of(caplog, f"/{NAME}/Flood")
    assert (line.levelno, field(line, "code")) == (logging.INFO, "CANCELLED")
