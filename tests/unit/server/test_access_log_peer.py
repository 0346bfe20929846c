"""The access log reads the peer while the call exists."""

import asyncio
import logging
from typing import Any

import grpc
import pytest

from server.interceptors.access_log import AccessLog
from server.interceptors.request_id import RequestId


class OneCall:
    """The context of a call. To read the peer of a finished call would crash the process."""

    def __init__(self) -> None:
        self.is_over = False

    def peer(self) -> str:
        assert not self.is_over
        return "ipv4:192.0.2.7:50000"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK


async def test_the_access_log_reads_the_peer_before_the_call_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    context: Any = OneCall()

    async def serve() -> None:
        for interceptor in (RequestId(), AccessLog()):
            interceptor.before("/tidemark.v1.AlertService/GetAlert", context)
        context.is_over = True

    await asyncio.create_task(serve())
    await asyncio.sleep(0)  # the callbacks of the task
    assert [record.__dict__["peer"] for record in caplog.records] == ["ipv4:192.0.2.7:50000"]
