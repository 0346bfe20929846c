"""The access log reads the peer while the call exists."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from server.interceptors.access_log import AccessLog
from server.interceptors.request_id import RequestId


class OneCall:
    """The context of a call. To read the peer of a finished call would crash the process."""

    def __init__(self) -> None:
        self.is_over = False
        self.callbacks: list[Callable[[Any], None]] = []

    def peer(self) -> str:
        assert not self.is_over
        return "ipv4:192.0.2.7:50000"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)


async def test_the_access_log_reads_the_peer_before_the_call_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    context: Any = OneCall()
    for interceptor in (RequestId(), AccessLog()):
        interceptor.before("/tidemark.v1.AlertService/GetAlert", context)
    context.is_over = True
    for callback in context.callbacks:
        callback(context)
    assert [record.__dict__["peer"] for record in caplog.records] == ["ipv4:192.0.2.7:50000"]
