"""Back-off: pauses that double up to a limit, with a random part, and begin anew after a success."""

import random

from runtime.backoff import Backoff, pause_after


def test_a_pause_doubles_with_each_failure_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0, random_part=0.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next() == 0.5


def test_a_pause_has_a_random_part_of_the_given_share() -> None:
    backoff, other = (Backoff(1.0, 1.0, randomness=random.Random(7)) for _ in range(2))
    pauses = [backoff.next() for _ in range(1_000)]
    assert pauses == [other.next() for _ in range(1_000)]
    assert 0.5 <= min(pauses) < 0.51 < 0.99 < max(pauses) <= 1.0


def test_a_pause_stays_the_longest_however_many_tries_fail() -> None:
    assert pause_after(100_000, 0.1, 5.0, random_part=0.0) == 5.0
