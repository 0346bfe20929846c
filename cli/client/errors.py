"""What a failed call reports about its cause: a `google.rpc.Status` in its trailing metadata, with details."""

from datetime import timedelta

import grpc
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"

# With these codes a server reports that it failed itself, and not that it could not be reached.
SERVER_FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})

# The codes after which a new stream can succeed. gRPC also reports a connection that is cut in the middle of a frame
# as INTERNAL.
PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


def error_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The `google.rpc.Status` of a failed call; empty if the call brought none."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    return status_pb2.Status.FromString(details) if isinstance(details, bytes) else status_pb2.Status()


def complete_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The `google.rpc.Status` of a failed call, made of its code and message if the call brought none."""
    status = error_status(error)
    if not status.code:
        status.code = error.code().value[0]
        status.message = error_message(error)
    return status


def error_message(error: grpc.aio.AioRpcError) -> str:
    """The message of a failed call, otherwise the name of its code."""
    return error.details() or error.code().name


def error_reason(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo reason of a failed call; empty if it brought none."""
    return status_reason(error_status(error))


def status_reason(status: status_pb2.Status) -> str:
    """The ErrorInfo reason of a status; empty if it has none."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """The seconds after which the server asks for a new try; None if it does not ask for one."""
    for detail in error_status(error).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            delay: timedelta = retry.retry_delay.ToTimedelta()
            return delay.total_seconds()
    return None
