"""The health of an endpoint as a value: how each attempt changes it, and which operator events follow.

Back-pressure (429, 503) is not a failure of a delivery: the endpoint waits. Failures in a row open the circuit
breaker, which lets one probe through after a pause. After a probe that succeeds, traffic returns in doubling steps.
An endpoint without a success for days is disabled.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from webhooks.jitter import jittered
from webhooks.operator_events import Notice, OperatorEvent, OperatorEventType
from webhooks.retry_after import MAX_RETRY_AFTER

# Waits after back-pressure, unless the receiver asks for a longer one. Each pause in a row is twice as long.
FIRST_THROTTLE = timedelta(seconds=5)
LONGEST_THROTTLE = timedelta(minutes=5)

BREAKER_THRESHOLD = 10  # failures in a row that open the breaker
FIRST_OPENING = timedelta(seconds=10)  # until the probe; twice as long after each probe that fails
LONGEST_OPENING = timedelta(minutes=5)
FIRST_WINDOW = 2  # in flight at a time after the probe succeeded; doubled with each further success

DISABLE_AFTER = timedelta(days=5)  # without a success
DISABLE_FAILURES = 10  # and with as many failures: an endpoint with little traffic is not disabled after three
WARNING_PERCENTS = (50, 90)  # of DISABLE_AFTER

SUCCESS_PRECISION = timedelta(seconds=10)  # of last_success_time: a busy endpoint's row is not written for it alone


class BreakerState(StrEnum):
    """Whether an endpoint gets attempts."""

    CLOSED = "CLOSED"  # yes
    OPEN = "OPEN"  # not until breaker_until
    HALF_OPEN = "HALF_OPEN"  # one at a time, the probe


class DisableReason(StrEnum):
    """Why an endpoint is disabled."""

    REQUESTED = "REQUESTED"  # by its owner
    GONE = "GONE"  # it answered 410
    FAILING = "FAILING"  # no success for DISABLE_AFTER


class HealthSignal(StrEnum):
    """What an attempt says about the health of its endpoint."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    THROTTLED = "THROTTLED"  # 429 or 503
    GONE = "GONE"  # 410


@dataclass(frozen=True)
class HealthSample:
    """One attempt, as far as it concerns the health of its endpoint."""

    signal: HealthSignal
    automatic: bool = True  # a failed attempt that a person asked for does not count against the endpoint
    exhausted: bool = False  # it was the last attempt of its delivery
    retry_after: timedelta | None = None  # what the receiver asked for
    delivery: dict[str, object] = field(default_factory=dict)  # for the operator event of an exhausted delivery


@dataclass(frozen=True)
class Health:
    """The health of an endpoint. The fields are named like the columns of the table."""

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
    disable_reason: DisableReason | None = None  # set: the endpoint has to be disabled

    def after(
        self, sample: HealthSample, now: datetime, randomness: random.Random
    ) -> tuple["Health", tuple[Notice, ...]]:
        """The health after an attempt, and the notices for operators. Returns itself when nothing changes."""
        match sample.signal:
            case HealthSignal.SUCCEEDED:
                return self._succeeded(now)
            case HealthSignal.GONE:
                return self._disabled(DisableReason.GONE)
            case HealthSignal.THROTTLED:
                changed = self._throttled(sample.retry_after, now, randomness)
            case HealthSignal.FAILED:
                changed = self._failed(now, randomness)
        if not sample.automatic:
            return changed, ()
        changed = replace(changed, failing_since=self.failing_since or now, failure_count=self.failure_count + 1)
        changed, warnings = changed._warned(now)
        if sample.exhausted and not changed.exhaustion_noted:
            changed = replace(changed, exhaustion_noted=True)
            warnings = (Notice(OperatorEventType.DELIVERY_EXHAUSTED, sample.delivery), *warnings)
        return changed, warnings

    def _succeeded(self, now: datetime) -> tuple["Health", tuple[Notice, ...]]:
        window = self.breaker_window
        if self.breaker_state is not BreakerState.CLOSED:
            window = FIRST_WINDOW
        elif window is not None:
            window *= 2
        recent = self.last_success_time is not None and now - self.last_success_time < SUCCESS_PRECISION
        healthy = Health(
            max_in_flight=self.max_in_flight,
            not_before=self.not_before,
            breaker_window=window if window is not None and window < self.max_in_flight else None,
            last_success_time=self.last_success_time if recent else now,
            disable_reason=self.disable_reason,
        )
        if healthy == self:
            return self, ()
        healthy = replace(healthy, last_success_time=now)
        if not self.warned_percent and not self.exhaustion_noted:
            return healthy, ()
        return healthy, (Notice(OperatorEventType.ENDPOINT_RECOVERED, self._figures()),)

    def _throttled(self, retry_after: timedelta | None, now: datetime, randomness: random.Random) -> "Health":
        waits = self.not_before is not None and self.not_before > now
        # Requests that were in flight together get the same answer; that is one pause, not several.
        count = self.throttle_count if waits else self.throttle_count + 1
        wait = jittered(_doubled(FIRST_THROTTLE, max(count - 1, 0), LONGEST_THROTTLE), randomness)
        if retry_after is not None:
            # Never shorter than without the header: a receiver that asks for no wait would be called in a tight loop.
            wait = max(wait, min(retry_after, MAX_RETRY_AFTER))
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
        pause = jittered(_doubled(FIRST_OPENING, self.breaker_openings, LONGEST_OPENING), randomness)
        return replace(
            changed,
            breaker_state=BreakerState.OPEN,
            breaker_until=now + pause,
            breaker_openings=self.breaker_openings + 1,
        )

    def _warned(self, now: datetime) -> tuple["Health", tuple[Notice, ...]]:
        """Disables an endpoint that has failed for too long, or warns before that."""
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


Key = tuple[int, str]  # organization_id, endpoint_id


@dataclass(frozen=True)
class Judgement:
    """What a batch of attempts changes: the new health of some endpoints, in the order of their keys, and events."""

    changed: dict[Key, Health]
    events: list[OperatorEvent]

    @property
    def to_disable(self) -> dict[Key, DisableReason]:
        """The endpoints that have to be disabled, and why."""
        return {
            key: health.disable_reason for key, health in self.changed.items() if health.disable_reason is not None
        }


def judge(
    before: Mapping[Key, Health],
    samples: Iterable[tuple[Key, HealthSample]],
    now: datetime,
    randomness: random.Random,
) -> Judgement:
    """The health of endpoints after attempts, in the order of the attempts.

    before: the health of the enabled endpoints. Samples of others change nothing.
    """
    current = dict(before)
    settled: set[Key] = set()  # endpoints whose health a further success does not change
    events = []
    for key, sample in samples:
        succeeded = sample.signal is HealthSignal.SUCCEEDED
        if key not in current or (succeeded and key in settled):
            continue
        health, notices = current[key].after(sample, now, randomness)
        if succeeded and health is current[key]:
            settled.add(key)
        elif not succeeded:
            settled.discard(key)
        current[key] = health
        events += [OperatorEvent(*key, notice) for notice in notices]
    return Judgement({key: current[key] for key in sorted(current) if current[key] != before[key]}, events)
