"""The calls of the API: one channel for the process, and the key of the visitor in each call."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.audit_service_pb2_grpc import AuditServiceStub
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub

CALL_TIMEOUT = 10.0  # seconds
MAX_ANSWER = 16 * 1024 * 1024  # bytes

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_ANSWER),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # After a restart of the server the next page must not wait for gRPC's back-off of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.primary_user_agent", "tidemark-console"),
)
_DETAILS = "grpc-status-details-bin"

Request = TypeVar("Request", contravariant=True, bound=Message)
Answer = TypeVar("Answer", covariant=True)


class Method(Protocol[Request, Answer]):
    """A unary method of a stub."""

    def __call__(self, request: Request, *, timeout: float, metadata: Any) -> Awaitable[Answer]:
        """Calls it."""


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request: its path, and what to do."""

    path: str
    description: str


@dataclass
class ApiError(Exception):
    """A call that the server refused, or that did not reach it.

    reason: of ErrorInfo; empty if the server did not answer. violations: the fields of the request that are wrong.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()

    @property
    def is_missing(self) -> bool:
        """Whether what was asked for does not exist, or the key may not see that it does."""
        return self.code is grpc.StatusCode.NOT_FOUND

    @property
    def is_unreachable(self) -> bool:
        """Whether no server answered."""
        return self.code is grpc.StatusCode.UNAVAILABLE and not self.reason

    @property
    def is_too_much(self) -> bool:
        """Whether the server has no time for it at present: a page can do without a curve."""
        return self.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)

    @property
    def is_refused(self) -> bool:
        """Whether the key may not do it."""
        return self.code is grpc.StatusCode.PERMISSION_DENIED


def error_of(error: grpc.aio.AioRpcError) -> ApiError:
    """The error of a failed call, with its details."""
    found = ApiError(error.code(), error.details() or error.code().name)
    details = dict(error.trailing_metadata() or ()).get(_DETAILS)
    status = status_pb2.Status.FromString(details) if isinstance(details, bytes) else status_pb2.Status()
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            found.reason, found.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            found.violations = [Violation(one.field, one.description) for one in bad.field_violations]
    return found


class Api:
    """The stubs of all services, on one channel. call_timeout: seconds for which a call may take."""

    def __init__(self, channel: grpc.aio.Channel, call_timeout: float = CALL_TIMEOUT) -> None:
        self.call_timeout = call_timeout
        self.alerts: Any = AlertServiceStub(channel)
        self.accounts: Any = AccountServiceStub(channel)
        self.audit: Any = AuditServiceStub(channel)
        self.limits: Any = LimitServiceStub(channel)
        self.webhooks: Any = WebhookServiceStub(channel)


class Calls:
    """Calls with one API key; None: without a key."""

    def __init__(self, api: Api, key: str | None) -> None:
        self.api = api
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)

    async def __call__(self, method: Method[Request, Answer], request: Request) -> Answer:
        """Calls a method. Raises ApiError."""
        try:
            return await method(request, timeout=self.api.call_timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from None
