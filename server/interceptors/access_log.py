"""Writes one log line for each call when it ends: method, code, duration, organization, request id, trace id."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from runtime.actions import LogAction
from server.calls import current_call
from server.calls.context import Context, when_over
from server.interceptors.wrapping import Around

logger = logging.getLogger(__name__)

# Codes for faults of this service. Faults of a caller are not errors in the operator's log.
_OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


class AccessLog(Around):
    """Logs every call once: health and reflection at debug, faults of the service as errors, all others at info."""

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Measures the duration of the call; gRPC calls back when it is over."""
        started = time.monotonic()
        call = current_call.get()
        # Read now: when the call is over, grpc.aio can read memory that is freed, and the process crashes.
        peer = context.peer()
        # When the client leaves during a write, gRPC drops the generator of the stream without an exception. So a
        # call that has not finished when gRPC calls back was cancelled.
        finished = grpc.StatusCode.CANCELLED

        def log(_: Context) -> None:
            _write(call, peer, context.code() or finished, time.monotonic() - started)

        when_over(context, log)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            finished = grpc.StatusCode.UNKNOWN  # gRPC's code, unless the call was aborted with another
            raise
        finished = grpc.StatusCode.OK


def _write(call: current_call.Call, peer: str, code: grpc.StatusCode, seconds: float) -> None:
    if call.is_infrastructure:
        level = logging.DEBUG
    elif code in _OUR_FAULT:
        level = logging.ERROR
    else:
        level = logging.INFO
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level,
        "%s %s",
        call.method,
        code.name,
        extra={
            "action": LogAction.CALL,
            "method": call.method,
            "code": code.name,
            "milliseconds": round(seconds * 1000, 3),
            "organization": None,
            **call.log_fields(),  # gRPC calls back outside of the call
            "peer": peer,
        },
    )
