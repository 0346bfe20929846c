"""The results of attempts: written, with their effect on the endpoints, and with the next claim if there is room."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.claims import Claim, ClaimRequest, SentClaim, claim, read_claims, send_claim
from store.deliveries.finishing import MICROSECOND, Ending, SentEndings, read_ended, send_endings
from store.endpoints.health import update_health
from store.postgres.database import driver
from webhooks.deliveries import AttemptOutcome, DeliveryStatus, Trigger
from webhooks.health import HealthSample, HealthSignal


@dataclass(slots=True, eq=False)
class AttemptRecord:
    """An attempt with its outcome, and what it changes for the delivery and the endpoint."""

    claim: Claim
    start_time: datetime
    duration: timedelta
    outcome: AttemptOutcome
    http_status: int | None
    response_excerpt: str
    error: str
    status: DeliveryStatus
    delay: timedelta | None  # until the next attempt; set exactly while the status is PENDING
    signal: HealthSignal
    retry_after: timedelta | None = None  # what the receiver asked for
    remote_address: str = ""
    secret_sequences: tuple[int, ...] = ()  # which of the endpoint's secrets signed it

    @property
    def health_sample(self) -> HealthSample:
        """The attempt as far as it concerns the health of its endpoint."""
        exhausted = self.status is DeliveryStatus.FAILED and self.signal is HealthSignal.FAILED
        delivery: dict[str, object] = {}
        if exhausted:
            delivery = {
                "delivery_id": self.claim.delivery_id,
                "notification_id": self.claim.notification_id,
                "attempt_count": self.claim.attempt_count + 1,
            }
        return HealthSample(
            self.signal,
            automatic=self.claim.trigger == Trigger.AUTOMATIC,
            exhausted=exhausted,
            retry_after=self.retry_after,
            delivery=delivery,
        )


@dataclass(frozen=True)
class SentResults:
    """Results that have been sent to PostgreSQL, and whose answers can be read."""

    records: Sequence[AttemptRecord]
    endings: SentEndings
    request: ClaimRequest | None
    claim: SentClaim | None  # the claim that travels with the results


@dataclass(frozen=True)
class Recorded:
    """Which results counted, and what was claimed with them; claims is None when no claim was requested."""

    written: list[AttemptRecord]
    claims: list[Claim] | None = None


@asynccontextmanager
async def sending(
    connection: AsyncConnection, records: Sequence[AttemptRecord], request: ClaimRequest | None = None
) -> AsyncIterator[SentResults]:
    """Sends the results of attempts. PostgreSQL executes them while the block runs; `read_recorded` has to follow.

    A result whose lease was taken over changes nothing. A delivery that would be attempted again is cancelled instead
    when its endpoint is no longer enabled.
    """
    # A success disables no endpoint. So a claim need not wait until health is updated, and travels with successes.
    travels = request is not None and all(record.signal is HealthSignal.SUCCEEDED for record in records)
    raw = await driver(connection)
    # None of these statements needs the answer of another, so they are sent together.
    async with raw.pipeline():
        endings = await send_endings(raw, [_ending(record) for record in records])
        sent_claim = await send_claim(raw, request) if request is not None and travels else None
        yield SentResults(records, endings, request, sent_claim)


async def read_recorded(connection: AsyncConnection, sent: SentResults, randomness: random.Random) -> Recorded:
    """Reads which results were written, updates the health of their endpoints, and claims what was requested."""
    ended = await read_ended(sent.endings)
    written = [
        record
        for record in sent.records
        if (record.claim.organization_id, record.claim.delivery_id) in ended.deliveries
    ]
    samples = [
        ((record.claim.organization_id, record.claim.endpoint_id), record.health_sample)
        for record in sorted(written, key=lambda record: record.start_time)
    ]
    await update_health(connection, ended.endpoints, samples, randomness)
    if sent.claim is not None:
        return Recorded(written, await read_claims(await driver(connection), sent.claim))
    return Recorded(written, None if sent.request is None else await claim(connection, sent.request))


def _ending(record: AttemptRecord) -> Ending:
    claim = record.claim
    return {
        "organization_id": claim.organization_id,
        "delivery_id": claim.delivery_id,
        "endpoint_id": claim.endpoint_id,
        "lease_token": claim.lease_token,
        "status": record.status,
        "delay_us": None if record.delay is None else record.delay // MICROSECOND,
        "attempts": 1,
        # Back-pressure is stored as an attempt, but the retry schedule does not count it.
        "steps": 0 if record.signal is HealthSignal.THROTTLED else 1,
        "trigger": claim.trigger,
        "start_time": record.start_time,
        "duration_us": record.duration // MICROSECOND,
        "outcome": record.outcome,
        "http_status": record.http_status,
        "remote_address": record.remote_address,
        "response_excerpt": record.response_excerpt,
        "error": record.error,
        "secret_sequences": record.secret_sequences,
    }
