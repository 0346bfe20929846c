"""The causes of failed calls, as the commands show them."""

from typing import Any, Protocol, cast

import grpc

from tidemark_client.errors import TidemarkError
from tidemark_client.errors.status import REASON_PREFIX, Cause, RpcStatus, cause_of_call, cause_of_status

# Stubs of gRPC raise the first, the streams of the client the second.
CALL_ERRORS = (grpc.aio.AioRpcError, TidemarkError)


class FailedCall(Protocol):
    """What errors of gRPC, of its synchronous and its asynchronous part, and of the client have in common."""

    def code(self) -> Any:
        """The grpc.StatusCode."""

    def details(self) -> str | None:
        """The message."""


def cause_of(error: FailedCall) -> Cause:
    """Why a call failed: an error of gRPC has it in its metadata, one of the client has read it already."""
    return error.cause if isinstance(error, TidemarkError) else cause_of_call(cast("Any", error))


def error_reason(error: FailedCall) -> str:
    """The ErrorInfo reason of a failed call; empty if it brought none."""
    return _with_prefix(cause_of(error).reason)


def status_reason(status: RpcStatus) -> str:
    """The ErrorInfo reason of a status; empty if it has none."""
    return _with_prefix(cause_of_status(status).reason)


def _with_prefix(reason: str) -> str:
    return reason and f"{REASON_PREFIX}{reason}"
