"""Errors that know their gRPC status, and the one function that answers an exception of a handler with one."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Never

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from generated.tidemark.v1 import error_reason_pb2
from generated.tidemark.v1.error_reason_pb2 import ErrorReason
from runtime.actions import LogAction
from server.calls import current_call
from server.calls.context import Context
from store.postgres.database import DatabaseUnavailable

DOMAIN = "tidemark.dev"
DETAILS_KEY = "grpc-status-details-bin"

# A status is sent in trailing metadata, as text and again in base64. Clients refuse more than 8 KiB of metadata by
# default, and then show an error of their own instead of this one.
MAX_MESSAGE_BYTES = 512  # UTF-8; percent-encoded on the wire, up to three times as long
MAX_VALUE_BYTES = 160  # of one metadata value of ErrorInfo or one description
MAX_DETAIL_BYTES = 3_000  # of all field violations

# The text for each failure of the database. None says where or how the database runs.
_DATABASE_WORDS = {
    "read_only": "the database accepts no writes now",
    "serialization": "other requests changed the same data at the same time",
    "deadlock": "other requests changed the same data at the same time",
    "lock_timeout": "another request holds a lock that this one needs",
    "statement_canceled": "the database took too long",
    "node_lost": (
        "a node of the database cluster does not answer: what concerns its customers, all customers, or rules and"
        " facts has to wait until it is back; usage of other customers goes on"
    ),
    "organization_busy": "the organization has as many requests in progress as it may have at the same time",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path in the request (`events[3].quantity`), and the problem."""

    path: str
    description: str


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A limit that is used up: of which subject, such as "organization:acme", and what it allows."""

    subject: str
    description: str


def exhausted_by_organization(description: str) -> Exhausted:
    """A limit of the organization of the current call."""
    return Exhausted(f"organization:{current_call.organization_name()}", description)


class ApiError(Exception):
    """An error that the caller receives: a gRPC code, a reason for programs, a message for people."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: timedelta | None = None,
        exhausted: Exhausted | None = None,
    ) -> None:
        """`metadata` goes into ErrorInfo, `violations` into BadRequest, `retry_after` into RetryInfo, `exhausted`
        into QuotaFailure."""
        super().__init__(message)
        self.reason = reason
        self.message = shortened(message, MAX_MESSAGE_BYTES)
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.exhausted = exhausted

    def status(self) -> status_pb2.Status:
        """The whole error as google.rpc.Status."""
        return status_pb2.Status(
            code=self.code.value[0],
            message=self.message,
            details=[_packed(detail) for detail in self._details()],
        )

    def _details(self) -> Iterable[Any]:
        yield error_details_pb2.ErrorInfo(
            reason=ErrorReason.Name(self.reason),
            domain=DOMAIN,
            metadata={key: shortened(value, MAX_VALUE_BYTES) for key, value in self.metadata.items()},
        )
        if self.violations:
            yield _bad_request(self.violations)
        if self.exhausted is not None:
            failure = error_details_pb2.QuotaFailure()
            failure.violations.add(
                subject=shortened(self.exhausted.subject, MAX_VALUE_BYTES),
                description=shortened(self.exhausted.description, MAX_VALUE_BYTES),
            )
            yield failure
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromTimedelta(self.retry_after)
            yield error_details_pb2.RetryInfo(retry_delay=delay)


class InvalidArgument(ApiError):
    """A field of the request is wrong, independent of the state of the system."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ApiError):
    """The caller's organization does not have the resource that the request names."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ApiError):
    """The resource that the request would create exists already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(ApiError):
    """The state of the system does not allow the request."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(ApiError):
    """Another request changed the same resource at the same time."""

    code = grpc.StatusCode.ABORTED


class ResourceExhausted(ApiError):
    """The request is too large, or the service is too busy."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ApiError):
    """The service cannot answer now. The same request may succeed later."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ApiError):
    """The call took longer than it may."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class PermissionDenied(ApiError):
    """The caller is known, and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(ApiError):
    """The call carries no API key, or one that is not valid."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Unimplemented(ApiError):
    """The service does not have the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(ApiError):
    """The service failed. The caller did nothing wrong."""

    code = grpc.StatusCode.INTERNAL


# The API error for each exception of the domain that the handlers of one service let pass.
ErrorTable = Mapping[type[Exception], Callable[[Any], ApiError]]

_NO_TABLE: ErrorTable = {}


def mapped(error: Exception, table: ErrorTable = _NO_TABLE) -> ApiError:
    """The API error for an exception of a handler. It contains no internal detail.

    An exception that `table` does not name is a fault of the service: the answer is INTERNAL, the log has the cause.
    """
    if isinstance(error, ApiError):
        return error
    if (answer := table.get(type(error))) is not None:
        return answer(error)
    request_id = current_call.request_id()
    if isinstance(error, DatabaseUnavailable):
        failure = error.failure
        logger.warning(
            "the database is unavailable: %s",
            error,
            extra={"action": LogAction.DATABASE_LOST, "failure": failure.kind, "request_id": request_id},
        )
        words = _DATABASE_WORDS.get(failure.kind, "the database does not answer")
        return Unavailable(
            error_reason_pb2.ERROR_REASON_DATABASE_UNAVAILABLE,
            f"{words}; repeat the request later",
            metadata={"failure": failure.kind},
            retry_after=failure.retry_after,
        )
    logger.error(
        "a call failed unexpectedly",
        exc_info=error,
        extra={"action": LogAction.INTERNAL_ERROR, "request_id": request_id},
    )
    return Internal(
        error_reason_pb2.ERROR_REASON_INTERNAL,
        f"internal error: the log of the service has its details under request id {request_id}",
        metadata={"request_id": request_id},
    )


def answer_too_large(size: int, limit: int) -> ApiError:
    """The error for an answer of `size` bytes where clients accept `limit`. It is logged as a fault."""
    request_id = current_call.request_id()
    logger.error(
        "an answer of %d bytes is longer than clients accept, and was not sent",
        size,
        extra={"action": LogAction.ANSWER_TOO_LARGE, "request_id": request_id, "bytes": size},
    )
    return Internal(
        error_reason_pb2.ERROR_REASON_ANSWER_TOO_LARGE,
        f"the answer has {size} bytes, and clients accept at most {limit}: ask for less, with a smaller page_size or"
        " fewer events; the request itself took effect",
        metadata={"bytes": str(size), "limit": str(limit), "request_id": request_id},
    )


async def abort(context: Context, error: Exception, table: ErrorTable = _NO_TABLE) -> Never:
    """Ends the call with the status of `error`."""
    shown = mapped(error, table)
    try:
        await context.abort(
            shown.code,
            shown.message,
            (*context.trailing_metadata(), (DETAILS_KEY, shown.status().SerializeToString())),
        )
    except grpc.aio.InternalError:
        # The caller has gone, and gRPC is about to cancel this task. Without this gRPC logs a failure of the service.
        raise asyncio.CancelledError from None


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """As many violations as metadata can carry, and the number of the others."""
    bad = error_details_pb2.BadRequest()
    size = 0
    for number, violation in enumerate(violations):
        field = shortened(violation.path, MAX_VALUE_BYTES)
        description = shortened(violation.description, MAX_VALUE_BYTES)
        size += len(field.encode()) + len(description.encode()) + 8
        if size > MAX_DETAIL_BYTES:
            bad.field_violations.add(field="", description=f"and {len(violations) - number} more violations")
            break
        bad.field_violations.add(field=field, description=description)
    return bad


def _packed(detail: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def shortened(text: str, limit: int) -> str:
    """The text cut to `limit` bytes of UTF-8. Characters that UTF-8 cannot express are replaced."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"
