"""When a delivery is tried again: the schedule, and the decision after an attempt as a value."""

import email.utils
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from webhooks.deliveries import DeliveryStatus, Outcome
from webhooks.health import MAX_JITTER, Verdict

# The wait before each attempt. A late alert is worth less than a fresh one, so the first tries come quickly.
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
# The delays alone add up to less than this when the jitter is small; nothing is given up earlier.
MINIMUM_AGE_TO_GIVE_UP = timedelta(hours=72)
MAX_RETRY_AFTER = timedelta(hours=24)
LONGEST_NUMBER = 9  # digits of a Retry-After that are read; more would mean centuries


@dataclass(frozen=True)
class Decision:
    """What becomes of a delivery after an attempt."""

    status: DeliveryStatus
    verdict: Verdict  # on the endpoint
    delay: timedelta | None = None  # until the next attempt; set exactly while the status is PENDING


_SUCCESS = Decision(DeliveryStatus.DELIVERED, Verdict.SUCCEEDED)


def decide(
    outcome: Outcome,
    *,
    back_pressure: bool = False,
    attempts: int,
    age: timedelta,
    retry_after: timedelta | None,
    randomness: random.Random,
) -> Decision:
    """Decides after an attempt.

    `attempts` counts those that the schedule counts, this one included; `age` is the time since the delivery was
    created; `retry_after` is what the receiver asked for, and only ever makes the wait longer. After back-pressure
    (429, 503) it is the endpoint that waits, and the delivery keeps its place.
    """
    if outcome is Outcome.DELIVERED:
        return _SUCCESS
    if outcome is Outcome.GONE:
        return Decision(DeliveryStatus.FAILED, Verdict.GONE)
    if back_pressure:
        return Decision(DeliveryStatus.PENDING, Verdict.THROTTLED, timedelta(0))
    if attempts >= len(DELAYS) and age >= MINIMUM_AGE_TO_GIVE_UP:
        return Decision(DeliveryStatus.FAILED, Verdict.FAILED)
    delay = DELAYS[min(attempts, len(DELAYS) - 1)]
    delay += delay * randomness.uniform(0.0, MAX_JITTER)
    if retry_after is not None:
        delay = max(delay, min(retry_after, MAX_RETRY_AFTER))
    return Decision(DeliveryStatus.PENDING, Verdict.FAILED, delay)


def asked_wait(headers: Sequence[str], dates: Sequence[str], now: datetime) -> timedelta | None:
    """The longest wait that the `Retry-After` headers of a response ask for; None when none of them can be read.

    `dates` are its `Date` headers. A Retry-After that is a date is counted from there, by the receiver's own clock: a
    receiver whose clock is wrong still means as many seconds as lie between the two.
    """
    sent = _http_date(dates[0]) if len(dates) == 1 else None
    waits = [parse_retry_after(header, now if sent is None else sent) for header in headers]
    return max((wait for wait in waits if wait is not None), default=None)


def parse_retry_after(header: str | None, now: datetime) -> timedelta | None:
    """The wait that a Retry-After header asks for, in seconds or as an HTTP date; None without a header.

    A date that has passed asks for no wait at all. What is neither form is ignored.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text)) if len(text) <= LONGEST_NUMBER else MAX_RETRY_AFTER
    time = _http_date(text)
    return None if time is None else max(time - now, timedelta(0))


def _http_date(text: str) -> datetime | None:
    try:
        time = email.utils.parsedate_to_datetime(text.strip())
    except (ValueError, OverflowError):
        return None
    # RFC 5322 writes -0000 for "in UTC, wherever that was".
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
