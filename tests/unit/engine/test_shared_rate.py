"""What several processes together take of a rate, while each takes all that it may."""

import pytest

from engine.quotas.use import OrganizationUse
from runtime.quotas import QuotaKind
from store.identity.quotas import OthersUse, Use

EVENTS = QuotaKind.EVENTS_PER_SECOND
QUOTA = 100  # events a second
SECONDS = 200
STEPS = 20  # of a second, in which processes exchange once, each in another step


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("message", [10, 50, 500, 5_000])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_processes_take_no_more_than_the_rate_and_once_a_message_and_three_seconds_each(
    processes: int, message: int
) -> None:
    hand = Hand()
    uses = [OrganizationUse({EVENTS: QUOTA}, hand) for _ in range(processes)]
    said, taken, most_ahead = [Use()] * processes, 0, 0.0
    for step in range(SECONDS * STEPS):
        for use in uses:
            if use.wait(EVENTS) == 0:
                use.take(EVENTS, message)
                taken += message
        most_ahead = max(most_ahead, taken - QUOTA * step / STEPS)
        hand.now += 1 / STEPS
        for number, use in enumerate(uses):
            if (step + 3 * number) % STEPS == 0:
                said[number] = use.measured()
                others = [one for index, one in enumerate(said) if index != number]
                rates = [one.events_per_second for one in others]
                total = Use(events_per_second=sum(rates))
                use.follow({EVENTS: QUOTA}, OthersUse(total, sum(rate > 0 for rate in rates)))
    assert most_ahead <= processes * (message + 3 * QUOTA)
    assert taken >= 0.9 * QUOTA * SECONDS
