"""A guard: work that uses something of a customer is done only if it fits into the customer's limits.

    async with guard.reserve("acme", "tokens", Decimal(1000)) as grant:
        if not grant.allowed:
            return too_many_requests(grant.retry_after)
        answer = await model.complete(prompt, max_tokens=int(grant.quantity))
        grant.used = Decimal(answer.tokens)

At the end of the block the reservation is settled with what was used. It is released if the block raised and used
nothing.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import grpc
from google.protobuf.duration_pb2 import Duration

from examples.enforcement.reports import PASSING, Reports, Send, pause
from generated.tidemark.v1 import (
    alert_service_pb2,
    alert_service_pb2_grpc,
    decision_pb2,
    limit_service_pb2,
    limit_service_pb2_grpc,
    requested_usage_pb2,
)

CALL_TIMEOUT = 5.0  # seconds for one try in the background; no client waits for it

logger = logging.getLogger(__name__)


@dataclass
class Grant:
    """The answer to one request for usage.

    quantity: what may be used: less than was asked for with the policy CAP. decided: Tidemark has answered; False:
    the guard has, because Tidemark did not. retry_after: seconds; None: no time will make it fit, or nothing is
    known. used: what was used, to be set by the caller. Unset at the end of the block: all of `quantity`.
    """

    reservation_id: str
    allowed: bool
    quantity: Decimal
    decided: bool = True
    retry_after: float | None = None
    limit_id: str = ""
    used: Decimal | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


class Guard:
    """Reserves usage before it happens, and reports afterwards.

    key: the API key, with the role ingester. fail_open: whether work is done while Tidemark does not answer; its
    usage is then sent as an event. decision_seconds: how long a client may wait for a decision, with all tries.
    try_seconds: of them, for one try. ttl: seconds after which a reservation of a lost gateway is given back; a
    reservation whose work takes longer is extended.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        key: str | None,
        *,
        fail_open: bool,
        decision_seconds: float = 1.0,
        try_seconds: float = 0.4,
        ttl: float = 60.0,
        policy: decision_pb2.UsageOveragePolicy.ValueType = decision_pb2.USAGE_OVERAGE_POLICY_REJECT,
    ) -> None:
        self._limits = limit_service_pb2_grpc.LimitServiceStub(channel)
        self._alerts = alert_service_pb2_grpc.AlertServiceStub(channel)
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self._fail_open = fail_open
        self._decision_seconds = decision_seconds
        self._try_seconds = try_seconds
        self._ttl = ttl
        self._policy = policy
        self.reports = Reports()

    @contextlib.asynccontextmanager
    async def reserve(
        self, customer_id: str, metric_id: str, quantity: Decimal, reservation_id: str | None = None
    ) -> AsyncIterator[Grant]:
        """Does the block with the answer.

        reservation_id: the id of the request, if it has one that no client can choose; unique for the customer.
        Raises grpc.aio.AioRpcError where the request or the key is wrong: fail_open is not for mistakes.
        """
        request = limit_service_pb2.ReserveUsageRequest(
            # One id for all tries: a try whose answer was lost is not held twice.
            reservation_id=reservation_id or str(uuid.uuid4()),
            usage=requested_usage_pb2.RequestedUsage(
                customer_id=customer_id, metric_id=metric_id, quantity=f"{quantity:f}"
            ),
            overage_policy=self._policy,
            ttl=_duration(self._ttl),
        )
        try:
            grant = await self._decide(request)
        except asyncio.CancelledError:
            # The client has gone. A try may have been carried out all the same. (After an error that is final nothing
            # is released: with RESERVATION_CONFLICT, the reservation is that of another request.)
            await self._release(request)
            raise
        if not grant.allowed:
            if not grant.decided:
                await self._release(request)
            yield grant
            return
        heartbeat = asyncio.create_task(self._extend(request)) if grant.decided else None
        try:
            yield grant
        except BaseException:
            if grant.used is None:
                await self._release(request)
            else:
                await self._report(request, grant)
            raise
        else:
            await self._report(request, grant)
        finally:
            if heartbeat is not None:
                heartbeat.cancel()

    async def _decide(self, request: limit_service_pb2.ReserveUsageRequest) -> Grant:
        """The answer of Tidemark, or after decision_seconds the one of this guard."""
        end = time.monotonic() + self._decision_seconds
        asked = Decimal(request.usage.quantity)
        tries = 0
        while (left := end - time.monotonic()) > 0:
            try:
                answer = await self._limits.ReserveUsage(
                    request, metadata=self._metadata, timeout=min(left, self._try_seconds)
                )
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
                logger.warning("no decision: %s %s", error.code().name, error.details())
                await asyncio.sleep(min(pause(tries), max(0.0, end - time.monotonic())))
                tries += 1
                continue
            decision = answer.decision
            return Grant(
                request.reservation_id,
                decision.outcome != decision_pb2.DECISION_OUTCOME_DENIED,
                Decimal(decision.granted_quantity),
                retry_after=_seconds(decision.retry_after) if decision.HasField("retry_after") else None,
                limit_id=decision.limit.limit_id,
            )
        return Grant(request.reservation_id, self._fail_open, asked if self._fail_open else Decimal(0), decided=False)

    async def _report(self, request: limit_service_pb2.ReserveUsageRequest, grant: Grant) -> None:
        """Settles the reservation; or sends an event, where it is not known whether there is one."""
        used = grant.quantity if grant.used is None else grant.used
        send_event = self._event(request, grant, used)
        if not grant.decided:
            await self.reports.send(f"event {request.reservation_id}", send_event)
            return
        settlement = limit_service_pb2.SettleReservationRequest(
            customer_id=request.usage.customer_id,
            reservation_id=request.reservation_id,
            quantity=f"{used:f}",
        )

        async def settle() -> None:
            try:
                await self._limits.SettleReservation(settlement, metadata=self._metadata, timeout=CALL_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                    raise
                # It ended in another way, such as by an operator's release. The usage has happened, so it counts.
                await send_event()

        await self.reports.send(f"settlement of {request.reservation_id}", settle)

    def _event(self, request: limit_service_pb2.ReserveUsageRequest, grant: Grant, used: Decimal) -> Send:
        """One try to send the usage as an event, which settles the reservation if there is one after all.

        The event has the id that a settlement gives it, so it cannot count beside one.
        """
        sent = alert_service_pb2.EvaluateUsageBatchRequest()
        event = sent.batch.events.add(
            event_id=request.reservation_id,
            reservation_id=request.reservation_id,
            customer_id=request.usage.customer_id,
            metric_id=request.usage.metric_id,
            quantity=f"{used:f}",
        )
        event.event_time.FromDatetime(grant.time)

        async def send() -> None:
            answer = await self._alerts.EvaluateUsageBatch(sent, metadata=self._metadata, timeout=CALL_TIMEOUT)
            for rejected in answer.outcome.rejected:
                logger.error("the event %s was rejected: %s", event.event_id, rejected.status.message)
            for limit in answer.outcome.over_limits:
                logger.warning(
                    "%s is over its limit %s by usage that was admitted", limit.customer_id, limit.limit_id
                )

        return send

    async def _release(self, request: limit_service_pb2.ReserveUsageRequest) -> None:
        release = limit_service_pb2.ReleaseReservationRequest(
            customer_id=request.usage.customer_id, reservation_id=request.reservation_id
        )

        async def send() -> None:
            try:
                await self._limits.ReleaseReservation(release, metadata=self._metadata, timeout=CALL_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                # There is none, or it holds nothing.
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                    raise

        await self.reports.send(f"release of {request.reservation_id}", send)

    async def _extend(self, request: limit_service_pb2.ReserveUsageRequest) -> None:
        """Extends the reservation while the work lasts. Two of three extensions may be lost."""
        extension = limit_service_pb2.ExtendReservationRequest(
            customer_id=request.usage.customer_id, reservation_id=request.reservation_id, ttl=request.ttl
        )
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                await self._limits.ExtendReservation(extension, metadata=self._metadata, timeout=self._ttl / 3)
            except grpc.aio.AioRpcError as error:
                # If it expires, its settlement counts all the same, as usage without a reservation.
                logger.warning("no extension: %s %s", error.code().name, error.details())


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
