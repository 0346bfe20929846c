"""The causes of failed calls, as the commands show them."""

import grpc

from tidemark_client.errors import TidemarkError
from tidemark_client.errors.status import REASON_PREFIX, RpcStatus, cause_of_call, cause_of_status

# Stubs of gRPC raise the first, the streams of the client the second.
CALL_ERRORS = (grpc.aio.AioRpcError, TidemarkError)
CallError = grpc.aio.AioRpcError | TidemarkError


def error_reason(error: CallError) -> str:
    """The ErrorInfo reason of a failed call; empty if it brought none."""
    cause = error.cause if isinstance(error, TidemarkError) else cause_of_call(error)
    return _with_prefix(cause.reason)


def status_reason(status: RpcStatus) -> str:
    """The ErrorInfo reason of a status; empty if it has none."""
    return _with_prefix(cause_of_status(status).reason)


def _with_prefix(reason: str) -> str:
    return reason and f"{REASON_PREFIX}{reason}"
