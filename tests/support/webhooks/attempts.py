"""Attempts as a notifier makes and records them, with results that a test chooses."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries import claims as delivery_claims
from store.deliveries import outbox
from store.deliveries.claims import Claim, ClaimRequest
from store.deliveries.results import AttemptRecord, Recorded, read_recorded, sending
from tests.support.notifier.house import House
from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import HealthSignal

START = datetime(2026, 3, 15, 12, 0, 0, 10, tzinfo=UTC)
DURATION = timedelta(milliseconds=1234, microseconds=5)


async def fan_out(house: House) -> None:
    """Turns the rows of the outbox into deliveries."""
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 1_000)


async def claim(house: House) -> list[Claim]:
    """Claims the deliveries that are due."""
    async with house.database.transaction() as connection:
        return await delivery_claims.claim(connection, ClaimRequest(100, timedelta(minutes=1)))


async def record(
    house: House, claims: list[Claim], status: DeliveryStatus, delay: timedelta | None = None
) -> list[AttemptRecord]:
    """Records one attempt of each claim; returns the recorded ones."""
    delivered = status is DeliveryStatus.DELIVERED
    records = [
        AttemptRecord(
            claim=claim,
            start_time=START,
            duration=DURATION,
            outcome=AttemptOutcome.DELIVERED if delivered else AttemptOutcome.SERVER_ERROR,
            http_status=200 if delivered else None,
            response_excerpt="räsponse",
            error="" if delivered else "out of order",
            status=status,
            delay=delay,
            signal=HealthSignal.SUCCEEDED if delivered else HealthSignal.FAILED,
            remote_address="192.0.2.7",
            secret_sequences=tuple(secret.sequence for secret in claim.endpoint.secrets),
        )
        for claim in claims
    ]
    async with house.database.transaction() as connection:
        return (await write_results(connection, records)).written


async def write_results(
    connection: AsyncConnection,
    records: Sequence[AttemptRecord],
    randomness: random.Random | None = None,
    request: ClaimRequest | None = None,
) -> Recorded:
    """Writes results, and claims what is requested, as the recorder does."""
    async with sending(connection, records, request) as sent:
        pass
    return await read_recorded(connection, sent, randomness or random.Random())


async def attempt_all(house: House, status: DeliveryStatus, delay: timedelta | None = None) -> list[Claim]:
    """Fans out and makes one attempt of each delivery that is due, with that result; returns the attempted ones.

    A notifier gives one endpoint four at a time; this goes on until nothing is due.
    """
    await fan_out(house)
    claims: list[Claim] = []
    while found := await claim(house):
        await record(house, found, status, delay)
        claims += found
        if status is DeliveryStatus.PENDING and not delay:
            break
    return claims
