"""Writes one log line for each call when it ends: method, code, duration, organization, request id, trace id."""

import logging
import time

import grpc

from runtime.actions import LogAction
from server.calls import current_call
from server.calls.context import Context, when_over
from server.interceptors.wrapping import Before

logger = logging.getLogger(__name__)

# Codes for faults of this service. Faults of a caller are not errors in the operator's log.
_OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


class AccessLog(Before):
    """Logs every call once: health and reflection at debug, faults of the service as errors, all others at info."""

    def before(self, method: str, context: Context) -> None:
        """Measures the duration of the call; gRPC calls back when it is over."""
        started = time.monotonic()
        call = current_call.get()

        def log(_: object) -> None:
            _write(call, context.code() or call.outcome, time.monotonic() - started)

        when_over(log)


def _write(call: current_call.Call, code: grpc.StatusCode, seconds: float) -> None:
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
            **call.log_fields(),
            "peer": call.peer,
        },
    )
