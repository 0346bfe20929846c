"""The steps of the delivery queue, each in a transaction of its own, and attempts with a given result."""

import dataclasses
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from store.deliveries import claims as delivery_claims
from store.deliveries import leases, outbox
from store.deliveries.claims import Claim, ClaimRequest
from store.deliveries.leases import Holdings
from store.deliveries.results import AttemptRecord
from store.tables.webhooks import delivery
from tests.support.notifier.house import House
from tests.support.webhooks.attempts import write_results
from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import HealthSignal

LEASE = timedelta(minutes=5)
ALL_TOKENS = Holdings(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), (), ())


async def fan_out(house: House, limit: int = 1_000) -> outbox.FanOut:
    """Turns rows of the outbox into deliveries."""
    async with house.database.transaction() as connection:
        return await outbox.fan_out(connection, limit)


async def claim(house: House, limit: int = 100) -> list[Claim]:
    """Claims deliveries that are due."""
    async with house.database.transaction() as connection:
        return await delivery_claims.claim(connection, ClaimRequest(limit, LEASE))


async def record(house: House, records: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """Records attempts; returns the recorded ones."""
    async with house.database.transaction() as connection:
        return (await write_results(connection, records)).written


def delivered(claim: Claim) -> AttemptRecord:
    """An attempt that the receiver answered with 200."""
    return AttemptRecord(
        claim=claim,
        start_time=datetime(2026, 3, 15, 12, 0, tzinfo=UTC),
        duration=timedelta(milliseconds=12),
        outcome=AttemptOutcome.DELIVERED,
        http_status=200,
        response_excerpt="ok",
        error="",
        status=DeliveryStatus.DELIVERED,
        delay=None,
        signal=HealthSignal.SUCCEEDED,
        remote_address="203.0.113.9",
        secret_sequences=(2, 1),
    )


def failed(claim: Claim, delay: timedelta = timedelta(0)) -> AttemptRecord:
    """An attempt that the receiver answered with 500; its delivery is due again after the delay."""
    return dataclasses.replace(
        delivered(claim),
        outcome=AttemptOutcome.SERVER_ERROR,
        http_status=500,
        error="the receiver answered 500",
        status=DeliveryStatus.PENDING,
        delay=delay,
        signal=HealthSignal.FAILED,
    )


async def counters_match(house: House) -> bool:
    """Whether each endpoint's counter equals its leased deliveries."""
    async with house.database.transaction() as connection:
        rows = await connection.execute(
            select(delivery.c.endpoint_id, func.count().label("number"))
            .where(delivery.c.lease_token.is_not(None))
            .group_by(delivery.c.endpoint_id)
        )
        leased = {row.endpoint_id: row.number for row in rows}
    return {key: number for key, number in (await house.in_flight()).items() if number} == leased


async def release_expired(house: House) -> int:
    """Releases the leases that ran out; returns how many."""
    async with house.database.transaction() as connection:
        return await leases.release_expired(connection)
