"""The calls of a guard. Reports are single tries, each with the same request."""

from __future__ import annotations

import logging
from datetime import datetime
from decimal import Decimal

import grpc
from google.protobuf.duration_pb2 import Duration

from tidemark_client.connection.target import Metadata
from tidemark_client.enforcement.reports import Send
from tidemark_client.usage.events import set_time
from tidemark_client.v1 import alert_service_pb2, limit_service_pb2
from tidemark_client.v1.alert_service_pb2_grpc import AlertServiceStub
from tidemark_client.v1.limit_service_pb2_grpc import LimitServiceStub

CALL_TIMEOUT = 5.0  # seconds for one try in the background; no client waits for it

_HAS_ENDED = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)

logger = logging.getLogger("tidemark_client.enforcement")


class LimitCalls:
    """Calls over one channel. They raise AioRpcError."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._limits = LimitServiceStub(channel)
        self._alerts = AlertServiceStub(channel)
        self._metadata = metadata

    async def reserve(
        self, request: limit_service_pb2.ReserveUsageRequest, timeout: float
    ) -> limit_service_pb2.ReserveUsageResponse:
        """One try to reserve."""
        return await self._limits.ReserveUsage(request, metadata=self._metadata, timeout=timeout)

    async def extend(self, request: limit_service_pb2.ReserveUsageRequest, timeout: float) -> None:
        """One try to extend the reservation by its ttl."""
        extension = limit_service_pb2.ExtendReservationRequest(
            customer_id=request.usage.customer_id, reservation_id=request.reservation_id, ttl=request.ttl
        )
        await self._limits.ExtendReservation(extension, metadata=self._metadata, timeout=timeout)

    def settlement(
        self, request: limit_service_pb2.ReserveUsageRequest, used: Decimal, cost: str, event: Send
    ) -> Send:
        """A settlement. Where the reservation has ended in another way, the usage is sent as an event."""
        settlement = limit_service_pb2.SettleReservationRequest(
            customer_id=request.usage.customer_id,
            reservation_id=request.reservation_id,
            quantity=f"{used:f}",
            cost=cost,
        )

        async def send() -> None:
            try:
                await self._limits.SettleReservation(settlement, metadata=self._metadata, timeout=CALL_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _HAS_ENDED:
                    raise
                # An operator released it, for example. The usage has happened, so it counts.
                await event()

        return send

    def release(self, request: limit_service_pb2.ReserveUsageRequest) -> Send:
        """A release. That there is nothing to release is as good."""
        release = limit_service_pb2.ReleaseReservationRequest(
            customer_id=request.usage.customer_id, reservation_id=request.reservation_id
        )

        async def send() -> None:
            try:
                await self._limits.ReleaseReservation(release, metadata=self._metadata, timeout=CALL_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _HAS_ENDED:
                    raise

        return send

    def event(self, request: limit_service_pb2.ReserveUsageRequest, time: datetime, used: Decimal, cost: str) -> Send:
        """The usage as an event, which settles the reservation if there is one after all.

        The event has the id that a settlement gives it, so it cannot count beside one.
        """
        usage = request.usage
        sent = alert_service_pb2.EvaluateUsageBatchRequest()
        event = sent.batch.events.add(
            event_id=request.reservation_id,
            reservation_id=request.reservation_id,
            customer_id=usage.customer_id,
            subscription_id=usage.subscription_id,
            metric_id=usage.metric_id,
            quantity=f"{used:f}",
            cost=cost,
            currency=usage.currency if cost else "",
            properties=usage.properties,
        )
        set_time(event, time)

        async def send() -> None:
            answer = await self._alerts.EvaluateUsageBatch(sent, metadata=self._metadata, timeout=CALL_TIMEOUT)
            for rejected in answer.outcome.rejected:
                logger.error("the event %s was rejected: %s", event.event_id, rejected.status.message)
            for limit in answer.outcome.over_limits:
                logger.warning(
                    "%s is over its limit %s by usage that was admitted", limit.customer_id, limit.limit_id
                )

        return send


def duration(seconds: float) -> Duration:
    """Seconds as a message."""
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
