"""Errors over HTTP: a google.rpc.Status with its HTTP code, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import orjson
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway.transcoding.problems import MAX_VIOLATIONS, Violation
from gateway.transcoding.writing import writer_of
from generated.tidemark.v1 import error_reason_pb2
from generated.tidemark.v1.error_reason_pb2 import ErrorReason

DOMAIN = "tidemark.dev"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_SECONDS = 1  # where the server is not there

# As google.rpc.Code documents them.
HTTP_CODES: Mapping[int, int] = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
}
_NAMES: Mapping[int, str] = {value: name for name, value in code_pb2.Code.items()}
# gRPC's own texts name the socket behind this port.
_TEXTS: Mapping[int, str] = {
    code_pb2.UNAVAILABLE: "the server does not answer now; repeat the request later",
    code_pb2.DEADLINE_EXCEEDED: "the call took longer than its deadline allows; it may have taken effect",
    code_pb2.CANCELLED: "the call was cancelled; it may have taken effect",
}
_REASONS: Mapping[int, str] = {code_pb2.DEADLINE_EXCEEDED: "ERROR_REASON_DEADLINE_EXCEEDED"}


@dataclass
class Refusal(Exception):
    """The error that a request is answered with. headers: of the answer, beside those of every such error."""

    status: status_pb2.Status
    http_code: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The body of the answer, before it is encoded."""
        return {"error": error_json(self.status, self.http_code)}

    def body(self) -> bytes:
        """The body of the answer."""
        return orjson.dumps(self.json())

    def all_headers(self) -> dict[str, str]:
        """The headers of the answer."""
        found = dict(self.headers)
        if (seconds := retry_seconds(self.status)) is not None:
            found["Retry-After"] = str(seconds)
        if self.http_code == 401:
            found["WWW-Authenticate"] = 'Bearer realm="tidemark"'
        return found


def error_json(status: status_pb2.Status, http_code: int | None = None) -> dict[str, Any]:
    """An error as JSON: its HTTP code, the name of its gRPC code, its message, and its details."""
    return {
        "code": http_code or http_code_of(status),
        "status": code_name(status.code),
        "message": status.message,
        "details": writer_of(status_pb2.Status.DESCRIPTOR)(status).get("details", []),
    }


def code_name(code: int) -> str:
    """The name of a gRPC code; UNKNOWN for one that does not exist."""
    return _NAMES.get(code, "UNKNOWN")


def http_code_of(status: status_pb2.Status) -> int:
    """The HTTP code of an error."""
    if status.code == code_pb2.RESOURCE_EXHAUSTED and reason_of(status) == "ERROR_REASON_MESSAGE_TOO_LARGE":
        return 413
    return HTTP_CODES.get(status.code, 500)


def reason_of(status: status_pb2.Status) -> str:
    """The reason of an error; empty if it has none."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in status.details) else ""


def retry_seconds(status: status_pb2.Status) -> int | None:
    """After how many seconds a request may be repeated, rounded up; None if the error does not say so."""
    retry = error_details_pb2.RetryInfo()
    if not any(detail.Unpack(retry) for detail in status.details):
        return None
    return retry.retry_delay.seconds + (retry.retry_delay.nanos > 0)


def of_status(status: status_pb2.Status) -> Refusal:
    """The refusal with a status of the server."""
    return Refusal(status, http_code_of(status))


def of_call(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal for a call that failed."""
    code: int = code_pb2.Code.Value(error.code().name)
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return of_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    status = status_pb2.Status(code=code, message=_TEXTS.get(code, "the call failed in the server"))
    if code in _REASONS:
        _add(status, error_details_pb2.ErrorInfo(reason=_REASONS[code], domain=DOMAIN))
    if code == code_pb2.UNAVAILABLE:
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=RETRY_SECONDS)))
    return of_status(status)


def refusal(
    code: int,
    reason: "ErrorReason.ValueType",
    message: str,
    *,
    http_code: int | None = None,
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[Violation] = (),
    headers: Mapping[str, str] | None = None,
    retry_seconds: int | None = None,
) -> Refusal:
    """A refusal of this port itself. http_code: where HTTP knows a more exact one than that of the gRPC code."""
    status = status_pb2.Status(code=code, message=_encodable(message))
    stated = {key: _encodable(value) for key, value in (metadata or {}).items()}
    _add(status, error_details_pb2.ErrorInfo(reason=ErrorReason.Name(reason), domain=DOMAIN, metadata=stated))
    if violations:
        bad = error_details_pb2.BadRequest()
        for one in violations[:MAX_VIOLATIONS]:
            bad.field_violations.add(field=_encodable(one.path), description=_encodable(one.description))
        _add(status, bad)
    if retry_seconds is not None:
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_seconds)))
    return Refusal(status, http_code or http_code_of(status), headers or {})


def invalid_fields(violations: Sequence[Violation]) -> Refusal:
    """The refusal of a request with bad fields; it names the first ones in its message, too."""
    shown = "; ".join(f"{one.path}: {one.description}" if one.path else one.description for one in violations[:3])
    more = f"; and {len(violations) - 3} more" if len(violations) > 3 else ""
    return refusal(
        code_pb2.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
        shown + more,
        violations=violations,
    )


def malformed(message: str, *, http_code: int = 400, headers: Mapping[str, str] | None = None) -> Refusal:
    """The refusal of a request that cannot be read as one of the method."""
    return refusal(
        code_pb2.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_MALFORMED_MESSAGE,
        message,
        http_code=http_code,
        headers=headers,
    )


def too_many_events(number: int, most: int, path: str = "") -> Refusal:
    """The refusal of a batch with more events than the server takes, as the server itself refuses it."""
    return refusal(
        code_pb2.INVALID_ARGUMENT,
        error_reason_pb2.ERROR_REASON_BATCH_TOO_LARGE,
        f"{path}: the batch has {number}; send at most {most}"
        if path
        else f"the batch has {number} events; send at most {most}",
        metadata={"events": str(number), "limit": str(most)},
    )


def unknown_path(method: str, path: str) -> Refusal:
    """The refusal of a path that does not exist."""
    return refusal(
        code_pb2.UNIMPLEMENTED,
        error_reason_pb2.ERROR_REASON_METHOD_UNKNOWN,
        "there is no such path: GET /openapi.json lists the paths",
        http_code=404,
        metadata={"method": f"{method} {path}"[:160]},
    )


def method_not_allowed(method: str, path: str, allowed: Sequence[str]) -> Refusal:
    """The refusal of a path that exists with other methods of HTTP."""
    return refusal(
        code_pb2.UNIMPLEMENTED,
        error_reason_pb2.ERROR_REASON_METHOD_UNKNOWN,
        f"this path has no {method[:20]}, but {', '.join(allowed)}",
        http_code=405,
        metadata={"method": f"{method} {path}"[:160]},
        headers={"Allow": ", ".join(allowed)},
    )


def too_large(size: int, limit: int) -> Refusal:
    """The refusal of a body that is too long. size: of its known part, bytes."""
    return refusal(
        code_pb2.RESOURCE_EXHAUSTED,
        error_reason_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
        f"the body has {size} bytes or more; at most {limit} are accepted: send less in one request",
        metadata={"bytes": str(size), "limit": str(limit)},
    )


def _encodable(text: str) -> str:
    """The text without what UTF-8 cannot express: bytes of a request line or of a header that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _add(status: status_pb2.Status, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
