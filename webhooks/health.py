"""The health of an endpoint as a value: what each attempt does to it, and what operators are told.

Back-pressure (429, 503) is no failure of a delivery: the endpoint waits. Failures in a row open the circuit breaker,
which lets one probe through after a while; when that succeeds, traffic comes back in doubling steps. An endpoint
without any success for days is disabled.
"""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from webhooks.operator_events import Notice, OperatorEventType

# Waits after back-pressure unless the receiver asks for a longer one; doubled each time in a row.
FIRST_THROTTLE = timedelta(seconds=5)
LONGEST_THROTTLE = timedelta(minutes=5)
LONGEST_ASKED_WAIT = timedelta(hours=24)

BREAKER_THRESHOLD = 10  # failures in a row that open the breaker
FIRST_OPENING = timedelta(seconds=10)  # until the probe; doubled each time that the probe fails
LONGEST_OPENING = timedelta(minutes=5)
FIRST_WINDOW = 2  # in flight at a time after the probe succeeded; doubled with each further success

DISABLE_AFTER = timedelta(days=5)  # without a success
DISABLE_FAILURES = 10  # and as many failures; a quiet endpoint is not disabled for three of them
WARNING_PERCENTS = (50, 90)  # of DISABLE_AFTER

SUCCESS_PRECISION = timedelta(seconds=10)  # of last_success_time: a busy endpoint's row is not written for it alone

MAX_JITTER = 0.2  # of a wait, upwards only: a receiver is never tried earlier than the schedule says


class BreakerState(StrEnum):
    """Whether an endpoint's traffic flows."""

    CLOSED = "CLOSED"  # it does
    OPEN = "OPEN"  # none until breaker_until
    HALF_OPEN = "HALF_OPEN"  # one probe at a time


class DisableReason(StrEnum):
    """Why an endpoint is disabled."""

    REQUESTED = "REQUESTED"  # by its owner
    GONE = "GONE"  # it answered 410
    FAILING = "FAILING"  # nothing but failures for DISABLE_AFTER


class Verdict(StrEnum):
    """What an attempt says about its endpoint."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    THROTTLED = "THROTTLED"  # 429 or 503
    GONE = "GONE"  # 410


@dataclass(frozen=True)
class Finding:
    """The result of one attempt, as far as the endpoint's health goes."""

    verdict: Verdict
    automatic: bool = True  # a try that a person asked for says nothing bad about the endpoint
    exhausted: bool = False  # it was the last attempt of its delivery
    retry_after: timedelta | None = None  # what the receiver asked for
    delivery: dict[str, object] = field(default_factory=dict)  # for the operators, when the delivery is exhausted


@dataclass(frozen=True)
class Health:
    """What the queue knows about an endpoint; fields as the columns of the table."""

    max_in_flight: int
    not_before: datetime | None = None
    throttle_count: int = 0
    breaker_state: BreakerState = BreakerState.CLOSED
    breaker_until: datetime | None = None
    breaker_failures: int = 0
    breaker_openings: int = 0
    breaker_window: int | None = None
    failing_since: datetime | None = None
    failure_count: int = 0
    last_success_time: datetime | None = None
    warned_percent: int = 0
    exhaustion_noted: bool = False
    disable_reason: DisableReason | None = None  # set: it has to be disabled

    def after(
        self, finding: Finding, now: datetime, randomness: random.Random
    ) -> tuple["Health", tuple[Notice, ...]]:
        """The health after an attempt, and what there is to tell."""
        match finding.verdict:
            case Verdict.SUCCEEDED:
                return self._succeeded(now)
            case Verdict.GONE:
                return self._disabled(DisableReason.GONE)
            case Verdict.THROTTLED:
                changed = self._throttled(finding.retry_after, now, randomness)
            case Verdict.FAILED:
                changed = self._failed(now, randomness)
        if not finding.automatic:
            return changed, ()
        changed = replace(changed, failing_since=self.failing_since or now, failure_count=self.failure_count + 1)
        changed, warnings = changed._judged(now)
        if finding.exhausted and not changed.exhaustion_noted:
            changed = replace(changed, exhaustion_noted=True)
            warnings = (Notice(OperatorEventType.DELIVERY_EXHAUSTED, finding.delivery), *warnings)
        return changed, warnings

    def _succeeded(self, now: datetime) -> tuple["Health", tuple[Notice, ...]]:
        window = self.breaker_window
        if self.breaker_state is not BreakerState.CLOSED:
            window = FIRST_WINDOW
        elif window is not None:
            window *= 2
        recent = self.last_success_time is not None and now - self.last_success_time < SUCCESS_PRECISION
        well = Health(
            max_in_flight=self.max_in_flight,
            not_before=self.not_before,
            breaker_window=window if window is not None and window < self.max_in_flight else None,
            last_success_time=self.last_success_time if recent else now,
            disable_reason=self.disable_reason,
        )
        if well == self:
            return self, ()
        well = replace(well, last_success_time=now)
        if not self.warned_percent and not self.exhaustion_noted:
            return well, ()
        return well, (Notice(OperatorEventType.ENDPOINT_RECOVERED, self._figures()),)

    def _throttled(self, retry_after: timedelta | None, now: datetime, randomness: random.Random) -> "Health":
        waits = self.not_before is not None and self.not_before > now
        # Several requests that were on their way together are answered alike; that is one pause, not several.
        count = self.throttle_count if waits else self.throttle_count + 1
        wait = _jittered(_doubled(FIRST_THROTTLE, max(count - 1, 0), LONGEST_THROTTLE), randomness)
        if retry_after is not None:
            # Never shorter than without it: a receiver that asks for no wait would be tried in a tight loop.
            wait = max(wait, min(retry_after, LONGEST_ASKED_WAIT))
        until = now + wait
        if self.not_before is not None:
            until = max(until, self.not_before)
        return replace(self, not_before=until, throttle_count=count)

    def _failed(self, now: datetime, randomness: random.Random) -> "Health":
        failures = self.breaker_failures + 1
        window = None if self.breaker_window is None else max(1, self.breaker_window // 2)
        opens = self.breaker_state is BreakerState.HALF_OPEN or (
            self.breaker_state is BreakerState.CLOSED and failures >= BREAKER_THRESHOLD
        )
        changed = replace(self, breaker_failures=failures, breaker_window=window, throttle_count=0)
        if not opens:
            return changed
        pause = _jittered(_doubled(FIRST_OPENING, self.breaker_openings, LONGEST_OPENING), randomness)
        return replace(
            changed,
            breaker_state=BreakerState.OPEN,
            breaker_until=now + pause,
            breaker_openings=self.breaker_openings + 1,
        )

    def _judged(self, now: datetime) -> tuple["Health", tuple[Notice, ...]]:
        """Disables an endpoint that has failed for too long, or warns of that."""
        assert self.failing_since is not None
        age = now - self.failing_since
        if age >= DISABLE_AFTER and self.failure_count >= DISABLE_FAILURES:
            return self._disabled(DisableReason.FAILING)
        reached = max((percent for percent in WARNING_PERCENTS if age >= DISABLE_AFTER * percent / 100), default=0)
        if reached <= self.warned_percent:
            return self, ()
        data = self._figures() | {"percent": reached, "disable_time": self.failing_since + DISABLE_AFTER}
        return replace(self, warned_percent=reached), (Notice(OperatorEventType.ENDPOINT_FAILING, data),)

    def _disabled(self, reason: DisableReason) -> tuple["Health", tuple[Notice, ...]]:
        if self.disable_reason is not None:
            return self, ()
        data = self._figures() | {"reason": reason}
        return replace(self, disable_reason=reason), (Notice(OperatorEventType.ENDPOINT_DISABLED, data),)

    def _figures(self) -> dict[str, object]:
        return {"failing_since": self.failing_since, "failure_count": self.failure_count}


def _doubled(first: timedelta, times: int, longest: timedelta) -> timedelta:
    return min(first * (1 << min(times, 20)), longest)


def _jittered(wait: timedelta, randomness: random.Random) -> timedelta:
    return wait * (1 + randomness.uniform(0.0, MAX_JITTER))
