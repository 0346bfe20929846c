"""What a failed call reports about its cause: a `google.rpc.Status` in its trailing metadata, with details."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from tidemark_client.imported.google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
REASON_PREFIX = "ERROR_REASON_"

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

_CODES = {int(code.value[0]): code for code in grpc.StatusCode}
_Detail = TypeVar("_Detail", bound=Message)


class FailedCall(Protocol):
    """A failed call of gRPC: the errors of both its APIs have these methods."""

    def code(self) -> grpc.StatusCode:
        """The status code."""

    def details(self) -> str | None:
        """The message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The metadata at the end of the call."""


class RpcStatus(Protocol):
    """A `google.rpc.Status`, whichever package its class comes from."""

    @property
    def code(self) -> int:
        """The number of the status code."""

    @property
    def message(self) -> str:
        """For people."""

    @property
    def details(self) -> Iterable[Any]:
        """`google.protobuf.Any` messages."""


@dataclass(frozen=True)
class FieldViolation:
    """One bad field: its path in the request (`alert.thresholds[2].value`), and the problem."""

    field: str
    description: str


@dataclass(frozen=True)
class Cause:
    """Why a call failed.

    reason: for programs, a name of `tidemark_client.v1.ErrorReason` without its prefix; empty if there is none.
    metadata: what belongs to the reason, such as the id that was not found. violations: the request's bad fields.
    retry_after: the seconds after which the server asks for a new try; None if it does not ask for one. request_id:
    of the call, for the logs of the server.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    request_id: str = ""


def error_status(error: FailedCall) -> status_pb2.Status:
    """The `google.rpc.Status` of a failed call, made of its code and message if the call brought none."""
    status = _sent_status(error)
    if not status.code:
        status.code = int(error.code().value[0])
        status.message = error.details() or error.code().name
    return status


def cause_of_call(error: FailedCall) -> Cause:
    """Why a call failed. The code is that of the call, whatever its details contain."""
    status = _sent_status(error)
    message = error.details() or status.message or error.code().name
    return _cause(error.code(), message, status, _request_id(error))


def cause_of_status(status: RpcStatus) -> Cause:
    """Why a part of a call failed, such as one event of a batch."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _cause(code, status.message or code.name, status, "")


def _cause(code: grpc.StatusCode, message: str, status: RpcStatus, request_id: str) -> Cause:
    info = _detail(status, error_details_pb2.ErrorInfo())
    retry = _detail(status, error_details_pb2.RetryInfo())
    bad = _detail(status, error_details_pb2.BadRequest())
    delay = None if retry is None else retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return Cause(
        code,
        message,
        reason="" if info is None else info.reason.removeprefix(REASON_PREFIX),
        metadata={} if info is None else dict(info.metadata),
        violations=()
        if bad is None
        else tuple(FieldViolation(one.field, one.description) for one in bad.field_violations),
        retry_after=delay,
        request_id=request_id,
    )


def _sent_status(error: FailedCall) -> status_pb2.Status:
    """The status in the trailing metadata; empty if there is none, or none that can be read."""
    status = status_pb2.Status()
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:  # of a proxy, for example: code and message say enough
                return status_pb2.Status()
    return status


def _request_id(error: FailedCall) -> str:
    for name, value in error.trailing_metadata() or ():
        if name == REQUEST_ID_KEY:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return ""


def _detail(status: RpcStatus, empty: _Detail) -> _Detail | None:
    """The detail of that type; None if there is none, or none that can be read."""
    for detail in status.details:
        try:
            if detail.Unpack(empty):
                return empty
        except DecodeError:
            continue
    return None


def as_failed_call(error: grpc.RpcError) -> FailedCall | None:
    """The error as a failed call; None for one without a status, such as that of a channel that is closed."""
    return cast("FailedCall", error) if hasattr(error, "code") and hasattr(error, "trailing_metadata") else None
