"""The retry schedule of a webhook: the wait before each attempt, and the decision after each attempt."""

import random
from dataclasses import dataclass
from datetime import timedelta

from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import HealthSignal
from webhooks.jitter import jittered
from webhooks.retry_after import MAX_RETRY_AFTER

# The wait before each attempt. A late alert is worth less than a fresh one, so the first attempts come quickly.
DELAYS = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=24),
    timedelta(hours=24),
)
# With little jitter the delays add up to less than this. A delivery never fails earlier.
MINIMUM_AGE_TO_GIVE_UP = timedelta(hours=72)


@dataclass(frozen=True)
class Decision:
    """What an attempt changes: the status of its delivery, and the health of its endpoint."""

    status: DeliveryStatus
    signal: HealthSignal
    delay: timedelta | None = None  # until the next attempt; set exactly while the status is PENDING


_SUCCESS = Decision(DeliveryStatus.DELIVERED, HealthSignal.SUCCEEDED)


def decide(
    outcome: AttemptOutcome,
    *,
    back_pressure: bool = False,
    attempts: int,
    age: timedelta,
    retry_after: timedelta | None,
    randomness: random.Random,
) -> Decision:
    """Decides after an attempt.

    attempts: those that the schedule counts, this one included. age: the time since the delivery was created.
    retry_after: what the receiver asked for; it can only make the wait longer. After back-pressure (429, 503) the
    endpoint waits, and the delivery keeps its step of the schedule.
    """
    if outcome is AttemptOutcome.DELIVERED:
        return _SUCCESS
    if outcome is AttemptOutcome.GONE:
        return Decision(DeliveryStatus.FAILED, HealthSignal.GONE)
    if back_pressure:
        return Decision(DeliveryStatus.PENDING, HealthSignal.THROTTLED, timedelta(0))
    if attempts >= len(DELAYS) and age >= MINIMUM_AGE_TO_GIVE_UP:
        return Decision(DeliveryStatus.FAILED, HealthSignal.FAILED)
    delay = jittered(DELAYS[min(attempts, len(DELAYS) - 1)], randomness)
    if retry_after is not None:
        delay = max(delay, min(retry_after, MAX_RETRY_AFTER))
    return Decision(DeliveryStatus.PENDING, HealthSignal.FAILED, delay)
