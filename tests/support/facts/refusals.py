"""Checks of the error of a refused request."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from tests.support.server.running import reason_of, violations_of


async def assert_violations(call: Awaitable[Any], *paths: str) -> None:
    """The call is refused for these fields, and no others."""
    await assert_refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", *paths)


async def assert_refused(call: Awaitable[Any], code: grpc.StatusCode, reason: str, *paths: str) -> None:
    """The call is refused with this code, reason (without its prefix) and bad fields."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is code
    assert reason_of(raised.value) == f"ERROR_REASON_{reason}"
    if paths:
        assert violations_of(raised.value) == list(paths)
