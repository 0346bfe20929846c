"""Writes one log line for each call when it ends: method, code, duration, organization, request id."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.calls import call as calls
from server.interceptors.around import Around, Context, when_over

logger = logging.getLogger(__name__)

# What a caller did wrong is not the operator's problem; what this service did wrong is.
_OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


class AccessLog(Around):
    """Logs every call once: health and reflection at debug, our own failures as errors, the rest at info."""

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Times the call; gRPC calls back when it is over."""
        started = time.monotonic()
        call = calls.current()
        # Not when it is over: grpc.aio then looks at a call that may be gone, and takes the process with it.
        peer = context.peer()
        # A stream whose client left while an answer was being written gets no exception: its generator is
        # just dropped. So a call that has not finished when gRPC is done with it was cancelled.
        finished = grpc.StatusCode.CANCELLED

        def log(_: Context) -> None:
            _write(call, peer, context.code() or finished, time.monotonic() - started)

        when_over(context, log)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            finished = grpc.StatusCode.UNKNOWN  # what gRPC makes of it, unless the call was aborted with a code
            raise
        finished = grpc.StatusCode.OK


def _write(call: calls.Call, peer: str, code: grpc.StatusCode, seconds: float) -> None:
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
            "action": "call",
            "method": call.method,
            "code": code.name,
            "milliseconds": round(seconds * 1000, 3),
            "organization": call.caller.organization.name if call.caller else None,
            "request_id": call.request_id,
            "peer": peer,
        },
    )
