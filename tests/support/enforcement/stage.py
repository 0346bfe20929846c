"""A server process with a hard limit, for programs that are its callers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    limit_pb2,
    limit_service_pb2,
    limit_service_pb2_grpc,
    requested_usage_pb2,
    reservation_pb2,
    scope_pb2,
)
from store.identity import keys
from store.postgres.database import Database
from tests.support.processes.programs import DEADLINE, Program

TOKENS = "tokens"  # the metric, and the id of its limit
# The channel must find a server soon that was started again.
_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))


class Stage:
    """A server with a limit for acme, and what it has counted."""

    def __init__(self, server: Program, channel: grpc.aio.Channel, key: str) -> None:
        self.server = server
        self.channel = channel
        self.key = key
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._limits: Any = limit_service_pb2_grpc.LimitServiceStub(channel)
        self._alerts: Any = alert_service_pb2_grpc.AlertServiceStub(channel)
        self._accounts: Any = account_service_pb2_grpc.AccountServiceStub(channel)

    async def limit(self, amount: str) -> None:
        """Puts the limit."""
        limit = limit_pb2.Limit(
            limit_id=TOKENS,
            amount=amount,
            customer=scope_pb2.CustomerScope(customer_id="acme"),
            quantity=access_pb2.QuantityAccess(metric_id=TOKENS),
            enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
        )
        await self._accounts.PutLimit(
            account_service_pb2.PutLimitRequest(limit=limit), metadata=self._metadata, timeout=DEADLINE
        )

    async def state(self) -> tuple[str, str, str]:
        """Counted, held and remaining of the limit."""
        usage = requested_usage_pb2.RequestedUsage(customer_id="acme", metric_id=TOKENS, quantity="0")
        answer = await self._limits.CheckUsage(
            limit_service_pb2.CheckUsageRequest(usage=usage),
            metadata=self._metadata,
            timeout=DEADLINE,
            wait_for_ready=True,
        )
        limit = answer.decision.limit
        return limit.counted, limit.held, limit.remaining

    async def reservation(self, reservation_id: str) -> reservation_pb2.Reservation:
        """A reservation of acme."""
        request = limit_service_pb2.GetReservationRequest(customer_id="acme", reservation_id=reservation_id)
        found: reservation_pb2.Reservation = (
            await self._limits.GetReservation(request, metadata=self._metadata, timeout=DEADLINE)
        ).reservation
        return found

    async def use(self, event_id: str, quantity: str) -> None:
        """Counts usage of acme that no guard has seen."""
        request = alert_service_pb2.EvaluateUsageBatchRequest()
        event = request.batch.events.add(event_id=event_id, customer_id="acme", metric_id=TOKENS, quantity=quantity)
        event.event_time.FromDatetime(datetime.now(UTC))
        answer = await self._alerts.EvaluateUsageBatch(request, metadata=self._metadata, timeout=DEADLINE)
        assert answer.outcome.accepted == 1


@asynccontextmanager
async def stage_of(organization: str, server: Program, url: str) -> AsyncIterator[Stage]:
    """A new organization of that name on the server, whose database is at `url`, and a limit of 500 tokens."""
    database = Database(url)
    async with database.transaction() as connection:
        created = await keys.create_key(connection, organization, datetime.now(UTC))
    await database.close()
    async with grpc.aio.insecure_channel(server.address.server, options=_OPTIONS) as channel:
        stage = Stage(server, channel, created.key)
        await stage.limit("500")
        yield stage
