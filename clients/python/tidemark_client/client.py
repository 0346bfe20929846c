"""`Client`: a connection for programs with threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, cast

import grpc

from tidemark_client.connection.sync_channel import SyncChannel
from tidemark_client.connection.target import DEFAULT_TIMEOUT, Target, Tls
from tidemark_client.enforcement.checks import CheckOptions
from tidemark_client.enforcement.guard import GuardOptions
from tidemark_client.errors.exceptions import Unavailable
from tidemark_client.errors.status import Cause
from tidemark_client.threads.enforcement import CachedChecks, Guard
from tidemark_client.threads.usage import UsageWriter
from tidemark_client.threads.watch import Watcher
from tidemark_client.usage.options import WriterOptions
from tidemark_client.watch.watcher import WatchOptions

if TYPE_CHECKING:
    from tidemark_client.v1.account_service_pb2_grpc import AccountServiceStub
    from tidemark_client.v1.alert_service_pb2_grpc import AlertServiceStub
    from tidemark_client.v1.audit_service_pb2_grpc import AuditServiceStub
    from tidemark_client.v1.limit_service_pb2_grpc import LimitServiceStub
    from tidemark_client.v1.webhook_service_pb2_grpc import WebhookServiceStub


class Client:
    """A connection to a server. Threads may share it. It connects at the first call.

    address: `HOST:PORT`; unset, that of TIDEMARK_SERVER, or else 127.0.0.1:50051. tls: True uses the authorities of
    the system, `Tls` others or a certificate of the client. api_key: unset, that of TIDEMARK_API_KEY, or else of
    TIDEMARK_KEY. timeout: seconds of a call without a timeout of its own; calls with streams have none. metadata: of
    each call. options: of the channel of gRPC. user_agent: the name of your program, for the logs of servers.

    Raises ValueError where an argument is wrong, OSError where a file of `tls` cannot be read.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: bool | Tls | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        metadata: Sequence[tuple[str, str]] = (),
        options: Sequence[tuple[str, object]] = (),
        user_agent: str = "",
    ) -> None:
        self.target = Target.of(
            address,
            tls=tls,
            api_key=api_key,
            timeout=timeout,
            metadata=metadata,
            options=options,
            user_agent=user_agent,
        )
        self._raw = self.target.channel()
        # The stubs use four methods of a channel, which it has.
        self._channel = cast("grpc.Channel", SyncChannel(self._raw, self.target))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Calls in progress end with CANCELLED."""
        self._raw.close()

    def wait_until_ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Connects. Raises Unavailable if that takes longer than `timeout` seconds."""
        try:
            grpc.channel_ready_future(self._raw).result(timeout)
        except grpc.FutureTimeoutError:
            raise no_server(self.target, timeout) from None

    def usage_writer(self, options: WriterOptions | None = None) -> UsageWriter:
        """A writer that sends usage in the background, for any threads: `with client.usage_writer() as writer`."""
        return UsageWriter(self.target, options)

    def watcher(self, options: WatchOptions | None = None) -> Watcher:
        """Notifications as they come: `with client.watcher() as watcher: for notification in watcher`."""
        return Watcher(self.target, options)

    def guard(self, options: GuardOptions | None = None) -> Guard:
        """Reserves usage before it happens: `with guard.reserve(…) as hold`, for all work of the program."""
        return Guard(self.target, options)

    def cached_checks(self, metric_id: str, options: CheckOptions | None = None) -> CachedChecks:
        """Whether customers may use one more unit of a metric, from a cache: `checks.may_use("acme")`."""
        return CachedChecks(self.target, metric_id, options)

    @cached_property
    def alerts(self) -> AlertServiceStub:
        """Alerts, usage and notifications."""
        from tidemark_client.v1.alert_service_pb2_grpc import AlertServiceStub

        return AlertServiceStub(self._channel)

    @cached_property
    def accounts(self) -> AccountServiceStub:
        """Customers, subscriptions, metrics, plans, limits, balances and invoices."""
        from tidemark_client.v1.account_service_pb2_grpc import AccountServiceStub

        return AccountServiceStub(self._channel)

    @cached_property
    def limits(self) -> LimitServiceStub:
        """Checks and reservations of usage."""
        from tidemark_client.v1.limit_service_pb2_grpc import LimitServiceStub

        return LimitServiceStub(self._channel)

    @cached_property
    def webhooks(self) -> WebhookServiceStub:
        """Endpoints and deliveries."""
        from tidemark_client.v1.webhook_service_pb2_grpc import WebhookServiceStub

        return WebhookServiceStub(self._channel)

    @cached_property
    def audit(self) -> AuditServiceStub:
        """The audit log."""
        from tidemark_client.v1.audit_service_pb2_grpc import AuditServiceStub

        return AuditServiceStub(self._channel)


def connect(
    address: str | None = None,
    *,
    tls: bool | Tls | None = None,
    api_key: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    metadata: Sequence[tuple[str, str]] = (),
    options: Sequence[tuple[str, object]] = (),
    user_agent: str = "",
) -> Client:
    """A client that is connected. The arguments are those of `Client`.

    Raises Unavailable if no server answers within `timeout` seconds.
    """
    client = Client(
        address,
        tls=tls,
        api_key=api_key,
        timeout=timeout,
        metadata=metadata,
        options=options,
        user_agent=user_agent,
    )
    try:
        client.wait_until_ready(timeout)
    except BaseException:
        client.close()
        raise
    return client


def no_server(target: Target, timeout: float) -> Unavailable:
    """The error of a server that cannot be reached."""
    hint = "" if target.tls else "; a server with TLS needs tls=True or tls=Tls(…)"
    message = f"no server answers at {target.address} within {timeout:g} seconds{hint}"
    return Unavailable(Cause(grpc.StatusCode.UNAVAILABLE, message))
