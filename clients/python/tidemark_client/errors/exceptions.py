"""The exceptions: one for each status code of gRPC, below one for all of them."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from tidemark_client.errors.status import (
    Cause,
    FieldViolation,
    RpcStatus,
    as_failed_call,
    cause_of_call,
    cause_of_status,
)


class TidemarkError(grpc.RpcError):
    """A call that failed. `str` of it is a sentence for people; the attributes are for programs.

    It is also a `grpc.RpcError`, with the methods `code` and `details` of gRPC's own errors.
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause

    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self.cause.code

    def details(self) -> str:
        """The message of the server."""
        return self.cause.message

    @property
    def reason(self) -> str:
        """Why it failed, such as ALERT_NOT_FOUND; empty if no server of Tidemark answered."""
        return self.cause.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """What belongs to the reason, such as the id that was not found."""
        return self.cause.metadata

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The bad fields of the request; all of them are here."""
        return self.cause.violations

    @property
    def retry_after(self) -> float | None:
        """The seconds after which the server asks for a new try; None if it does not ask for one."""
        return self.cause.retry_after

    @property
    def request_id(self) -> str:
        """The id of the call in the logs of the server; empty if no server answered."""
        return self.cause.request_id

    def __str__(self) -> str:
        cause = self.cause
        # The message of a bad request already has the first of the violations.
        others = [one for one in cause.violations if one.description not in cause.message]
        parts = [cause.message, *(f"{one.field}: {one.description}" for one in others)]
        sentence = "; ".join(parts)
        name = cause.reason or cause.code.name
        return f"{sentence} [{name}]" + (f" (request {cause.request_id})" if cause.request_id else "")


class Cancelled(TidemarkError):
    """The call was cancelled."""


class Unknown(TidemarkError):
    """The cause is not known; a proxy may have answered."""


class InvalidArgument(TidemarkError):
    """The request is wrong, whatever the state of the server: `violations` names the fields."""


class DeadlineExceeded(TidemarkError):
    """There was no answer in time. What was asked for may be done all the same."""


class NotFound(TidemarkError):
    """Something that the request names does not exist."""


class AlreadyExists(TidemarkError):
    """What the request creates exists already, or its id was used with another content."""


class PermissionDenied(TidemarkError):
    """The key may not do this: its roles do not allow the method, or it is limited to another customer."""


class ResourceExhausted(TidemarkError):
    """A quota or a share is used up. `retry_after` says when a new try can succeed."""


class FailedPrecondition(TidemarkError):
    """The state of something that the request names does not allow this."""


class Aborted(TidemarkError):
    """Another change came first: read again, and repeat."""


class OutOfRange(TidemarkError):
    """A value is outside of what exists."""


class Unimplemented(TidemarkError):
    """The server does not know the method: it may be older than this client."""


class Internal(TidemarkError):
    """The server failed; its logs have the cause under `request_id`."""


class Unavailable(TidemarkError):
    """No server answers, or it cannot answer now. A new try can succeed."""


class ConnectionLost(Unavailable):
    """No server answered in all the time that a writer or a watcher may try."""


class DataLoss(TidemarkError):
    """Data was damaged."""


class Unauthenticated(TidemarkError):
    """The server does not know the API key or the certificate, or there is none."""


_CLASSES: dict[grpc.StatusCode, type[TidemarkError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: Unknown,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}


def error_of_call(error: grpc.RpcError) -> TidemarkError:
    """The exception for an error of gRPC."""
    if isinstance(error, TidemarkError):
        return error
    call = as_failed_call(error)
    if call is None:
        return Unknown(Cause(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__))
    cause = cause_of_call(call)
    return _CLASSES.get(cause.code, Unknown)(cause)


def error_of_status(status: RpcStatus) -> TidemarkError:
    """The exception for a `google.rpc.Status` within an answer, such as that of a rejected event."""
    cause = cause_of_status(status)
    return _CLASSES.get(cause.code, Unknown)(cause)
