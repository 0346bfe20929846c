"""The retry schedule: the wait before each attempt, and when a delivery fails."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import HealthSignal
from webhooks.retry_after import MAX_RETRY_AFTER
from webhooks.retry_schedule import DELAYS, MINIMUM_AGE_TO_GIVE_UP, Decision, decide

NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
FAILURES = [outcome for outcome in AttemptOutcome if outcome not in (AttemptOutcome.DELIVERED, AttemptOutcome.GONE)]


class Extreme(random.Random):
    """Draws one end of every range."""

    def __init__(self, upper: bool) -> None:
        super().__init__()
        self._upper = upper

    def uniform(self, a: float, b: float) -> float:
        return b if self._upper else a


def decide_after(
    attempts: int,
    *,
    outcome: AttemptOutcome = AttemptOutcome.SERVER_ERROR,
    age: timedelta = timedelta(0),
    retry_after: timedelta | None = None,
    randomness: random.Random | None = None,
) -> Decision:
    return decide(
        outcome,
        attempts=attempts,
        age=age,
        retry_after=retry_after,
        randomness=randomness or Extreme(upper=False),
    )


def test_the_delays_without_jitter_are_those_of_the_schedule() -> None:
    minutes = [5 / 60, 0.5, 2, 10, 30, 120, 300, 600, 1440, 1440]
    waits = [decide_after(attempts).delay for attempts in range(1, len(DELAYS))]
    assert waits == [timedelta(minutes=number) for number in minutes]


@pytest.mark.parametrize("attempts", range(1, len(DELAYS)))
def test_jitter_reaches_a_fifth_upwards(attempts: int) -> None:
    assert decide_after(attempts, randomness=Extreme(upper=True)).delay == DELAYS[attempts] * 1.2


@given(st.integers(1, 20), st.randoms(use_true_random=False))
def test_jitter_never_makes_an_attempt_early(attempts: int, randomness: random.Random) -> None:
    delay = decide_after(attempts, randomness=randomness).delay
    assert delay is not None
    base = DELAYS[min(attempts, len(DELAYS) - 1)]
    assert base <= delay <= base * 1.2


def test_success_ends_the_delivery() -> None:
    assert decide_after(1, outcome=AttemptOutcome.DELIVERED) == Decision(
        DeliveryStatus.DELIVERED, HealthSignal.SUCCEEDED
    )


def test_gone_ends_the_delivery_and_disables_the_endpoint() -> None:
    expected = Decision(DeliveryStatus.FAILED, HealthSignal.GONE)
    assert decide_after(1, outcome=AttemptOutcome.GONE) == expected


@pytest.mark.parametrize("outcome", FAILURES)
def test_every_other_outcome_is_tried_again(outcome: AttemptOutcome) -> None:
    assert decide_after(1, outcome=outcome) == Decision(
        DeliveryStatus.PENDING, HealthSignal.FAILED, timedelta(seconds=5)
    )


@pytest.mark.parametrize("attempts", [1, 11, 500])
@pytest.mark.parametrize("outcome", [AttemptOutcome.THROTTLED, AttemptOutcome.SERVER_ERROR])
def test_back_pressure_leaves_the_wait_to_the_endpoint_however_often_it_comes(
    attempts: int, outcome: AttemptOutcome
) -> None:
    decision = decide(
        outcome,
        back_pressure=True,
        attempts=attempts,
        age=timedelta(days=30),
        retry_after=timedelta(hours=1),
        randomness=random.Random(),
    )
    assert decision == Decision(DeliveryStatus.PENDING, HealthSignal.THROTTLED, timedelta(0))


@pytest.mark.parametrize("upper", [False, True])
def test_nothing_is_given_up_before_72_hours_and_11_attempts(upper: bool) -> None:
    age, attempts = timedelta(0), 1
    while (decision := decide_after(attempts, age=age, randomness=Extreme(upper))).delay is not None:
        age += decision.delay
        attempts += 1
        assert attempts < 20
    assert decision == Decision(DeliveryStatus.FAILED, HealthSignal.FAILED)
    assert attempts >= 11
    assert age >= MINIMUM_AGE_TO_GIVE_UP


def test_an_old_delivery_still_gets_all_its_attempts() -> None:
    # The notifier was down for a week: the first attempt fails, and the schedule only begins.
    assert decide_after(1, age=timedelta(days=7)).status is DeliveryStatus.PENDING


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (timedelta(seconds=1), timedelta(seconds=5)),
        (timedelta(hours=1), timedelta(hours=1)),
        (timedelta(days=30), MAX_RETRY_AFTER),
    ],
)
def test_the_receiver_can_only_lengthen_the_wait_and_to_a_day_at_most(asked: timedelta, waited: timedelta) -> None:
    assert decide_after(1, retry_after=asked).delay == waited


@pytest.mark.parametrize("asked", [timedelta(0), timedelta(days=-3), timedelta(milliseconds=1)])
@pytest.mark.parametrize("attempts", range(1, 15))
def test_no_retry_after_makes_an_attempt_early(attempts: int, asked: timedelta) -> None:
    delay = decide_after(attempts, retry_after=asked).delay
    assert delay == DELAYS[min(attempts, len(DELAYS) - 1)]
