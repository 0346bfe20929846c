"""`AsyncGuard`: work that uses something of a customer is done only if it fits into the customer's limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.enforcement.calls import LimitCalls, duration
from tidemark_client.enforcement.hold import Hold
from tidemark_client.enforcement.reports import REPEATED, Reports
from tidemark_client.errors.exceptions import error_of_call
from tidemark_client.tasks.backoff import Backoff
from tidemark_client.usage.events import amount
from tidemark_client.v1 import decision_pb2, limit_service_pb2, requested_usage_pb2

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries

logger = logging.getLogger("tidemark_client.enforcement")


@dataclass(frozen=True)
class GuardOptions:
    """How a guard decides.

    fail_open: whether work is done while the server does not answer; its usage is then sent as an event.
    decision_seconds: how long a caller may wait for a decision, with all tries. try_seconds: of them, for one try.
    ttl: seconds after which a reservation of a lost program is given back; one whose work takes longer is extended.
    policy: what happens to a request that does not fit. most_reports: reports in memory that are not acknowledged;
    beyond, the guard makes its caller wait. drain_seconds: how long closing waits for them.
    """

    fail_open: bool = False
    decision_seconds: float = 1.0
    try_seconds: float = 0.4
    ttl: float = 60.0
    policy: decision_pb2.UsageOveragePolicy.ValueType = decision_pb2.USAGE_OVERAGE_POLICY_REJECT
    most_reports: int = 10_000
    drain_seconds: float = 30.0


class AsyncGuard:
    """Reserves usage before it happens, and reports afterwards.

    For one event loop. The API key needs the role ingester.

    Use it as `async with`: at the end it waits for its reports. They are in memory only: a program that is killed
    loses them, and its reservations expire.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata = (), options: GuardOptions | None = None
    ) -> None:
        self.options = options or GuardOptions()
        self.reports = Reports(self.options.most_reports)
        self._calls = LimitCalls(channel, metadata)

    async def __aenter__(self) -> AsyncGuard:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits for the reports, and logs how many are lost."""
        if lost := await self.reports.drain(self.options.drain_seconds):
            logger.error("%d reports about reservations are not acknowledged", lost)

    @contextlib.asynccontextmanager
    async def reserve(
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
    ) -> AsyncIterator[Hold]:
        """Does the block with the answer: look at `allowed` first, and call `settle` with what was used.

        reservation_id: the id of the request, if it has one that no client can choose; unique for the customer. At
        the end of the block the reservation is settled in the background. It is released if the block raised and said
        nothing of what it used.

        Raises TidemarkError where the request or the key is wrong: fail_open is not for mistakes.
        """
        request = self.request(
            customer_id,
            metric_id,
            quantity,
            cost=cost,
            currency=currency,
            properties=properties,
            subscription_id=subscription_id,
            reservation_id=reservation_id,
        )
        hold, heartbeat = await self.begin(request)
        try:
            yield hold
        except BaseException:
            await self.end(request, hold, heartbeat, failed=True)
            raise
        await self.end(request, hold, heartbeat, failed=False)

    def request(
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
    ) -> limit_service_pb2.ReserveUsageRequest:
        """The request of `reserve`."""
        return limit_service_pb2.ReserveUsageRequest(
            # One id for all tries: a try whose answer was lost is not held twice.
            reservation_id=reservation_id or str(uuid.uuid4()),
            usage=requested_usage_pb2.RequestedUsage(
                customer_id=customer_id,
                subscription_id=subscription_id,
                metric_id=metric_id,
                quantity=amount(quantity, "quantity"),
                cost=amount(cost, "cost"),
                currency=currency,
                properties=properties,
            ),
            overage_policy=self.options.policy,
            ttl=duration(self.options.ttl),
        )

    async def begin(self, request: limit_service_pb2.ReserveUsageRequest) -> tuple[Hold, asyncio.Task[None] | None]:
        """The answer, and the task that extends the reservation. Raises TidemarkError."""
        try:
            hold = await self._decide(request)
        except grpc.aio.AioRpcError as error:
            # Nothing is released: with RESERVATION_CONFLICT, the reservation is that of another request.
            raise error_of_call(error) from error
        except asyncio.CancelledError:
            # The caller has gone. A try may have been carried out all the same.
            await self._release(request)
            raise
        if not hold.allowed and not hold.decided:
            await self._release(request)
        is_held = hold.allowed and hold.decided
        return hold, asyncio.create_task(self._extend(request)) if is_held else None

    async def end(
        self,
        request: limit_service_pb2.ReserveUsageRequest,
        hold: Hold,
        heartbeat: asyncio.Task[None] | None,
        *,
        failed: bool,
    ) -> None:
        """Settles or releases in the background. failed: the block raised."""
        if heartbeat is not None:
            heartbeat.cancel()
        if not hold.allowed:
            return
        if hold.is_released or (failed and hold.used is None):
            await self._release(request)
        else:
            await self._report(request, hold)

    async def _decide(self, request: limit_service_pb2.ReserveUsageRequest) -> Hold:
        """The answer of the server, or after decision_seconds the one of this guard."""
        options = self.options
        end = time.monotonic() + options.decision_seconds
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while (left := end - time.monotonic()) > 0:
            try:
                answer = await self._calls.reserve(request, min(left, options.try_seconds))
            except grpc.aio.AioRpcError as error:
                if error.code() not in REPEATED:
                    raise
                logger.warning("no decision: %s %s", error.code().name, error.details())
                await asyncio.sleep(min(backoff.next(), max(0.0, end - time.monotonic())))
                continue
            decision = answer.decision
            after = decision.retry_after
            return Hold(
                request.reservation_id,
                decision.outcome != decision_pb2.DECISION_OUTCOME_DENIED,
                Decimal(decision.granted_quantity or 0),
                retry_after=after.seconds + after.nanos / 1e9 if decision.HasField("retry_after") else None,
                limit_id=decision.limit.limit_id,
                decision=decision,
            )
        asked = Decimal(request.usage.quantity) if options.fail_open else Decimal(0)
        return Hold(request.reservation_id, options.fail_open, asked, decided=False)

    async def _report(self, request: limit_service_pb2.ReserveUsageRequest, hold: Hold) -> None:
        """Settles the reservation; or sends an event, where it is not known whether there is one."""
        used = hold.quantity if hold.used is None else hold.used
        cost = hold.used_cost or (request.usage.cost if hold.used is None else "")
        event = self._calls.event(request, hold.time, used, cost)
        if not hold.decided:
            await self.reports.send(f"event {request.reservation_id}", event)
            return
        settle = self._calls.settlement(request, used, cost, event)
        await self.reports.send(f"settlement of {request.reservation_id}", settle)

    async def _release(self, request: limit_service_pb2.ReserveUsageRequest) -> None:
        await self.reports.send(f"release of {request.reservation_id}", self._calls.release(request))

    async def _extend(self, request: limit_service_pb2.ReserveUsageRequest) -> None:
        """Extends the reservation while the work lasts. Two of three extensions may be lost."""
        while True:
            await asyncio.sleep(self.options.ttl / 3)
            try:
                await self._calls.extend(request, self.options.ttl / 3)
            except grpc.aio.AioRpcError as error:
                # If it expires, its settlement counts all the same, as usage without a reservation.
                logger.warning("no extension: %s %s", error.code().name, error.details())
