"""`AsyncClient`: a connection for programs with asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, cast

import grpc

from tidemark_client.client import no_server
from tidemark_client.connection.async_channel import AsyncChannel
from tidemark_client.connection.target import DEFAULT_TIMEOUT, Target, Tls
from tidemark_client.enforcement.checks import AsyncCachedChecks, CheckOptions
from tidemark_client.enforcement.guard import AsyncGuard, GuardOptions
from tidemark_client.usage.options import WriterOptions
from tidemark_client.usage.writer import AsyncUsageWriter
from tidemark_client.watch.watcher import AsyncWatcher, WatchOptions

if TYPE_CHECKING:
    from tidemark_client.v1.account_service_pb2_grpc import AccountServiceAsyncStub
    from tidemark_client.v1.alert_service_pb2_grpc import AlertServiceAsyncStub
    from tidemark_client.v1.audit_service_pb2_grpc import AuditServiceAsyncStub
    from tidemark_client.v1.limit_service_pb2_grpc import LimitServiceAsyncStub
    from tidemark_client.v1.webhook_service_pb2_grpc import WebhookServiceAsyncStub


class AsyncClient:
    """A connection to a server, for one event loop. It connects at the first call. For the arguments see `Client`.

    Make it while the event loop runs: a channel of gRPC belongs to the loop that runs when it is made.
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
        asyncio.get_running_loop()  # raises RuntimeError
        self.target = Target.of(
            address,
            tls=tls,
            api_key=api_key,
            timeout=timeout,
            metadata=metadata,
            options=options,
            user_agent=user_agent,
        )
        self._raw = self.target.async_channel()
        # The stubs use four methods of a channel, which it has.
        self._channel = cast("grpc.aio.Channel", AsyncChannel(self._raw, self.target))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Calls in progress are cancelled."""
        await self._raw.close()

    async def wait_until_ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Connects. Raises Unavailable if that takes longer than `timeout` seconds."""
        try:
            await asyncio.wait_for(self._raw.channel_ready(), timeout)
        except asyncio.TimeoutError:
            raise no_server(self.target, timeout) from None

    def usage_writer(self, options: WriterOptions | None = None) -> AsyncUsageWriter:
        """A writer that sends usage in the background: `async with client.usage_writer() as writer`."""
        return AsyncUsageWriter(self._raw, self.target.call_metadata, options)

    def watcher(self, options: WatchOptions | None = None) -> AsyncWatcher:
        """Notifications as they come: `async for notification in client.watcher()`."""
        return AsyncWatcher(self._raw, self.target.call_metadata, options)

    def guard(self, options: GuardOptions | None = None) -> AsyncGuard:
        """Reserves usage before it happens: `async with guard.reserve(…) as hold`, for all work of the program."""
        return AsyncGuard(self._raw, self.target.call_metadata, options)

    def cached_checks(self, metric_id: str, options: CheckOptions | None = None) -> AsyncCachedChecks:
        """Whether customers may use one more unit of a metric, from a cache: `await checks.may_use("acme")`."""
        return AsyncCachedChecks(self._raw, self.target.call_metadata, metric_id, options)

    @cached_property
    def alerts(self) -> AlertServiceAsyncStub:
        """Alerts, usage and notifications."""
        from tidemark_client.v1.alert_service_pb2_grpc import AlertServiceStub

        return AlertServiceStub(self._channel)

    @cached_property
    def accounts(self) -> AccountServiceAsyncStub:
        """Customers, subscriptions, metrics, plans, limits, balances and invoices."""
        from tidemark_client.v1.account_service_pb2_grpc import AccountServiceStub

        return AccountServiceStub(self._channel)

    @cached_property
    def limits(self) -> LimitServiceAsyncStub:
        """Checks and reservations of usage."""
        from tidemark_client.v1.limit_service_pb2_grpc import LimitServiceStub

        return LimitServiceStub(self._channel)

    @cached_property
    def webhooks(self) -> WebhookServiceAsyncStub:
        """Endpoints and deliveries."""
        from tidemark_client.v1.webhook_service_pb2_grpc import WebhookServiceStub

        return WebhookServiceStub(self._channel)

    @cached_property
    def audit(self) -> AuditServiceAsyncStub:
        """The audit log."""
        from tidemark_client.v1.audit_service_pb2_grpc import AuditServiceStub

        return AuditServiceStub(self._channel)


async def connect_async(
    address: str | None = None,
    *,
    tls: bool | Tls | None = None,
    api_key: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    metadata: Sequence[tuple[str, str]] = (),
    options: Sequence[tuple[str, object]] = (),
    user_agent: str = "",
) -> AsyncClient:
    """A client that is connected. The arguments are those of `Client`.

    Raises Unavailable if no server answers within `timeout` seconds.
    """
    client = AsyncClient(
        address,
        tls=tls,
        api_key=api_key,
        timeout=timeout,
        metadata=metadata,
        options=options,
        user_agent=user_agent,
    )
    try:
        await client.wait_until_ready(timeout)
    except BaseException:
        await client.close()
        raise
    return client
