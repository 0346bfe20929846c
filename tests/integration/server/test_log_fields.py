"""Each log line of a call has the ids of the call, its organization and its trace."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from runtime.logs import FieldsFilter, JsonFormatter
from tests.support.server.odd_service import NAME, OddClient
from tests.support.tracing.contexts import context, metadata


class Lines(logging.Handler):
    """Log lines as the processes write them."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(FieldsFilter({"worker": 3}))
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line."""
        self.lines.append(json.loads(self.format(record)))

    async def of(self, action: str, method: str = "") -> dict[str, Any]:
        """Waits for the line of an action."""
        async with asyncio.timeout(30):
            while True:
                found = [
                    line for line in self.lines if line.get("action") == action and line.get("method", "") == method
                ]
                if found:
                    return found[0]
                await asyncio.sleep(0.01)


@pytest.fixture
def log() -> Iterator[Lines]:
    """The log of this process."""
    lines, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    yield lines
    root.removeHandler(lines)
    root.setLevel(level)


@pytest.mark.parametrize("method", ["Fail", "FailServerStream"])
async def test_lines_of_a_call_have_its_request_its_organization_and_its_trace(
    odd: OddClient, log: Lines, method: str
) -> None:
    sent = (("x-request-id", "r-1"), *metadata(context(5)))
    kind = odd.unary if method == "Fail" else odd.server_stream
    assert await kind(method)("", metadata=sent).code() is grpc.StatusCode.INTERNAL
    for line in (await log.of("internal_error"), await log.of("call", f"/{NAME}/{method}")):
        assert (line["request_id"], line["trace_id"]) == ("r-1", context(5).trace_id)
        assert (line["organization"], line["worker"]) == ("default", 3)
        assert line["organization_id"] > 0


async def test_lines_of_a_call_without_a_trace_have_none(odd: OddClient, log: Lines) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await odd.unary("Fail")("", metadata=(("x-request-id", "r-1"), ("traceparent", "00-nonsense")))
    for line in (await log.of("internal_error"), await log.of("call", f"/{NAME}/Fail")):
        assert line["request_id"] == "r-1"
        assert "trace_id" not in line


async def test_lines_outside_of_a_call_have_no_ids_of_one(log: Lines) -> None:
    logging.getLogger("test").warning("between calls", extra={"action": "between"})
    line = await log.of("between")
    assert not line.keys() & {"request_id", "trace_id", "organization", "organization_id"}
