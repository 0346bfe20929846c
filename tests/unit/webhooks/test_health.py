"""What attempts do to the health of their endpoint: back-pressure, the breaker, warnings, and the end."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.health import (
    BREAKER_THRESHOLD,
    DISABLE_AFTER,
    DISABLE_FAILURES,
    FIRST_OPENING,
    FIRST_THROTTLE,
    LONGEST_OPENING,
    LONGEST_THROTTLE,
    SUCCESS_PRECISION,
    BreakerState,
    Health,
    HealthSample,
    HealthSignal,
)
from webhooks.operator_events import Notice, OperatorEventType
from webhooks.retry_after import MAX_RETRY_AFTER

NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
SUCCESS = HealthSample(HealthSignal.SUCCEEDED)
FAILURE = HealthSample(HealthSignal.FAILED)
THROTTLED = HealthSample(HealthSignal.THROTTLED)


class NoJitter(random.Random):
    """Draws the lower end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return a


def after(health: Health, samples: Iterable[HealthSample], now: datetime = NOW) -> Health:
    for sample in samples:
        health, _ = health.after(sample, now, NoJitter())
    return health


def noticed(health: Health, sample: HealthSample, now: datetime = NOW) -> tuple[Health, list[Notice]]:
    health, notices = health.after(sample, now, NoJitter())
    return health, list(notices)


def test_failures_in_a_row_open_the_breaker_and_a_success_starts_the_count_anew() -> None:
    almost = [FAILURE] * (BREAKER_THRESHOLD - 1)
    assert after(Health(4), almost).breaker_state is BreakerState.CLOSED
    assert after(Health(4), [*almost, SUCCESS, *almost]).breaker_state is BreakerState.CLOSED
    opened = after(Health(4), [*almost, FAILURE])
    assert opened.breaker_state is BreakerState.OPEN
    assert opened.breaker_until == NOW + FIRST_OPENING
    # What was in flight when it opened changes nothing more.
    assert after(opened, [FAILURE]).breaker_until == opened.breaker_until


def test_each_probe_that_fails_doubles_the_pause_up_to_its_longest() -> None:
    health = after(Health(4), [FAILURE] * BREAKER_THRESHOLD)
    pauses = []
    for _ in range(8):
        assert health.breaker_until is not None
        pauses.append(health.breaker_until - NOW)
        health = after(half_open(health), [FAILURE])
    assert pauses[:3] == [FIRST_OPENING, FIRST_OPENING * 2, FIRST_OPENING * 4]
    assert pauses[-1] == LONGEST_OPENING


def half_open(health: Health) -> Health:
    """As the claim of the probe leaves it."""
    return Health(**{**vars(health), "breaker_state": BreakerState.HALF_OPEN})


def test_after_the_probe_succeeded_traffic_comes_back_in_doubling_steps() -> None:
    health = half_open(after(Health(16), [FAILURE] * BREAKER_THRESHOLD))
    windows = []
    for _ in range(5):
        health = after(health, [SUCCESS])
        assert health.breaker_state is BreakerState.CLOSED
        windows.append(health.breaker_window)
    assert windows == [2, 4, 8, None, None]


def test_a_failure_while_traffic_comes_back_halves_it() -> None:
    health = half_open(after(Health(16), [FAILURE] * BREAKER_THRESHOLD))
    assert after(health, [SUCCESS, SUCCESS, FAILURE]).breaker_window == 2


def test_back_pressure_opens_no_breaker_and_pauses_the_endpoint() -> None:
    health = after(Health(4), [THROTTLED] * 50)
    assert health.breaker_state is BreakerState.CLOSED
    assert health.breaker_failures == 0
    assert health.not_before == NOW + FIRST_THROTTLE
    assert health.throttle_count == 1  # requests that were on their way together are one pause


def test_pauses_that_the_receiver_does_not_name_double_up_to_the_longest() -> None:
    health, now, waits = Health(4), NOW, []
    for _ in range(9):
        health = after(health, [THROTTLED], now)
        assert health.not_before is not None
        waits.append(health.not_before - now)
        now = health.not_before
    assert waits[:3] == [FIRST_THROTTLE, FIRST_THROTTLE * 2, FIRST_THROTTLE * 4]
    assert waits[-1] == LONGEST_THROTTLE
    assert after(health, [SUCCESS], now).throttle_count == 0


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (timedelta(0), FIRST_THROTTLE),
        (timedelta(seconds=1), FIRST_THROTTLE),
        (timedelta(seconds=6), timedelta(seconds=6)),
        (timedelta(hours=3), timedelta(hours=3)),
        (timedelta(days=400), MAX_RETRY_AFTER),
    ],
)
def test_the_receiver_makes_the_pause_longer_and_never_shorter(asked: timedelta, waited: timedelta) -> None:
    health = after(Health(4), [HealthSample(HealthSignal.THROTTLED, retry_after=asked)])
    assert health.not_before == NOW + waited


def test_a_receiver_that_asks_for_no_wait_each_time_gets_the_pauses_that_double() -> None:
    health, now, waits = Health(4), NOW, []
    for _ in range(9):
        health = after(health, [HealthSample(HealthSignal.THROTTLED, retry_after=timedelta(0))] * 4, now)
        assert health.not_before is not None
        waits.append(health.not_before - now)
        now = health.not_before
    assert waits == [min(FIRST_THROTTLE * 2**number, LONGEST_THROTTLE) for number in range(9)]


def test_a_probe_that_is_answered_with_back_pressure_leaves_the_breaker_and_the_pause_in_place() -> None:
    health = half_open(after(Health(4), [FAILURE] * BREAKER_THRESHOLD))
    health = after(health, [HealthSample(HealthSignal.THROTTLED, retry_after=timedelta(0))])
    assert health.breaker_state is BreakerState.HALF_OPEN
    assert health.not_before == NOW + FIRST_THROTTLE


def test_a_shorter_pause_does_not_cut_a_longer_one() -> None:
    long = HealthSample(HealthSignal.THROTTLED, retry_after=timedelta(hours=1))
    assert after(Health(4), [long, THROTTLED, SUCCESS]).not_before == NOW + timedelta(hours=1)


def test_an_endpoint_without_a_success_is_warned_of_twice_and_then_disabled_once() -> None:
    health, events = Health(4), []
    for hours in range(0, 130, 2):
        health, notices = noticed(health, FAILURE, NOW + timedelta(hours=hours))
        events += [(hours, notice.event_type, notice.data.get("percent")) for notice in notices]
    assert events == [
        (60, OperatorEventType.ENDPOINT_FAILING, 50),
        (108, OperatorEventType.ENDPOINT_FAILING, 90),
        (120, OperatorEventType.ENDPOINT_DISABLED, None),
    ]
    assert health.disable_reason == "FAILING"


def test_few_failures_do_not_disable_a_quiet_endpoint() -> None:
    health = after(Health(4), [FAILURE] * (DISABLE_FAILURES - 2))
    health, _ = noticed(health, FAILURE, NOW + DISABLE_AFTER)
    assert health.disable_reason is None
    health, notices = noticed(health, FAILURE, NOW + DISABLE_AFTER)
    assert [notice.event_type for notice in notices] == [OperatorEventType.ENDPOINT_DISABLED]


def test_a_success_resets_everything_and_gives_a_notice_only_after_a_warning() -> None:
    health = after(Health(4), [FAILURE] * 3)
    well, notices = noticed(health, SUCCESS)
    assert notices == []
    assert well == Health(4, last_success_time=NOW)
    warned = after(health, [FAILURE], NOW + timedelta(days=3))
    well, notices = noticed(warned, HealthSample(HealthSignal.SUCCEEDED, automatic=False), NOW + timedelta(days=3))
    assert [notice.event_type for notice in notices] == [OperatorEventType.ENDPOINT_RECOVERED]
    assert (well.failing_since, well.failure_count, well.warned_percent) == (None, 0, 0)


def test_a_success_shortly_after_another_changes_nothing() -> None:
    health = after(Health(4), [SUCCESS])
    assert after(health, [SUCCESS], NOW + SUCCESS_PRECISION / 2) is health
    assert after(health, [SUCCESS], NOW + SUCCESS_PRECISION).last_success_time == NOW + SUCCESS_PRECISION
    assert after(health, [FAILURE, SUCCESS], NOW + SUCCESS_PRECISION / 2).last_success_time != NOW


def test_a_manual_try_that_fails_leaves_the_health_alone() -> None:
    health = after(Health(4), [HealthSample(HealthSignal.FAILED, automatic=False)] * 3, NOW + DISABLE_AFTER)
    assert (health.failing_since, health.failure_count, health.disable_reason) == (None, 0, None)


def test_operators_hear_of_exhausted_deliveries_once_until_a_success() -> None:
    exhausted = HealthSample(HealthSignal.FAILED, exhausted=True, delivery={"delivery_id": "whd_1"})
    health, first = noticed(Health(4), exhausted)
    health, second = noticed(health, exhausted)
    assert [notice.event_type for notice in first] == [OperatorEventType.DELIVERY_EXHAUSTED]
    assert first[0].data["delivery_id"] == "whd_1"
    assert second == []
    health, recovered = noticed(health, SUCCESS)
    assert [notice.event_type for notice in recovered] == [OperatorEventType.ENDPOINT_RECOVERED]
    assert noticed(health, exhausted)[1] != []


def test_gone_disables_immediately_with_one_notice() -> None:
    health, notices = noticed(Health(4), HealthSample(HealthSignal.GONE))
    assert health.disable_reason == "GONE"
    assert [notice.event_type for notice in notices] == [OperatorEventType.ENDPOINT_DISABLED]
    assert noticed(health, HealthSample(HealthSignal.GONE))[1] == []


@given(st.lists(st.sampled_from([SUCCESS, FAILURE, THROTTLED]), max_size=60), st.randoms(use_true_random=False))
def test_whatever_comes_pauses_are_bounded_and_the_window_stays_inside_the_limit(
    samples: list[HealthSample], randomness: random.Random
) -> None:
    health = Health(8)
    for number, sample in enumerate(samples):
        now = NOW + timedelta(seconds=number)
        health, _ = health.after(sample, now, randomness)
        assert health.not_before is None or health.not_before <= now + LONGEST_THROTTLE * 1.2
        if health.breaker_state is BreakerState.OPEN:
            assert health.breaker_until is not None
            assert health.breaker_until <= now + LONGEST_OPENING * 1.2
        assert health.breaker_window is None or 1 <= health.breaker_window < 8
