"""`Guard` and `CachedChecks`: enforcement for programs with threads. Any number of threads may share one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from decimal import Decimal

from tidemark_client.connection.target import Target
from tidemark_client.enforcement.checks import AsyncCachedChecks, CheckOptions
from tidemark_client.enforcement.guard import AsyncGuard, GuardOptions
from tidemark_client.enforcement.hold import Hold
from tidemark_client.threads.background import LoopUser


class Guard:
    """`AsyncGuard`, in a loop in the background. Use it as `with`: at the end it waits for its reports."""

    def __init__(self, target: Target, options: GuardOptions | None = None) -> None:
        self._is_closed = False
        self._user = LoopUser()
        self._channel = self._user.make(target.async_channel)
        self._guard = self._user.make(lambda: AsyncGuard(self._channel, target.call_metadata, options))

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def reserve(
        self,
        customer_id: str,
        metric_id: str,
        quantity: Decimal | int | str,
        *,
        cost: Decimal | int | str | None = None,
        currency: str = "",
        properties: Mapping[str, str] | None = None,
        subscription_id: str = "",
        reservation_id: str | None = None,
    ) -> Iterator[Hold]:
        """Does the block with the answer; see `AsyncGuard.reserve`."""
        request = self._guard.request(
            customer_id,
            metric_id,
            quantity,
            cost=cost,
            currency=currency,
            properties=properties,
            subscription_id=subscription_id,
            reservation_id=reservation_id,
        )
        hold, heartbeat = self._user.call(self._guard.begin(request))
        try:
            yield hold
        except BaseException:
            self._user.call(self._guard.end(request, hold, heartbeat, failed=True))
            raise
        self._user.call(self._guard.end(request, hold, heartbeat, failed=False))

    def close(self) -> None:
        """Waits for the reports, and logs how many are lost."""
        if self._is_closed:
            return
        self._is_closed = True

        async def close() -> None:
            await self._guard.close()
            await self._channel.close()

        try:
            self._user.call(close())
        finally:
            self._user.close()


class CachedChecks:
    """`AsyncCachedChecks`, in a loop in the background. Close it, or use it as `with`."""

    def __init__(self, target: Target, metric_id: str, options: CheckOptions | None = None) -> None:
        self._is_closed = False
        self._user = LoopUser()
        self._channel = self._user.make(target.async_channel)
        self._checks = self._user.make(
            lambda: AsyncCachedChecks(self._channel, target.call_metadata, metric_id, options)
        )

    def __enter__(self) -> CachedChecks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def may_use(self, customer_id: str) -> bool:
        """Whether the customer may use one more; see `AsyncCachedChecks.may_use`."""
        cached = self._checks.cached(customer_id)
        return self._user.call(self._checks.may_use(customer_id)) if cached is None else cached

    def close(self) -> None:
        """Ends the connection."""
        if not self._is_closed:
            self._is_closed = True
            self._user.call(self._channel.close())
            self._user.close()
