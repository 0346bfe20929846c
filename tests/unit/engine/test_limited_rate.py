"""A limited rate: debt, what is saved up, the order of streams, and the parts of several processes."""

import asyncio

import pytest

from engine.quotas.rate import BURST, LimitedRate, share_of_process


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def rate(hand: Hand) -> LimitedRate:
    limited = LimitedRate(hand)
    limited.set_rate(10.0)
    return limited


def test_rate_without_a_limit_never_waits(hand: Hand) -> None:
    rate = LimitedRate(hand)
    rate.take(10**9)
    assert rate.wait() == 0.0


def test_message_is_taken_as_a_whole_and_the_next_one_waits_until_it_is_paid(rate: LimitedRate, hand: Hand) -> None:
    rate.take(50)  # of which 10 were saved up
    assert rate.wait() == pytest.approx(4.0, abs=0.01)
    hand.now += 3.9
    assert rate.wait() > 0.0
    hand.now += 0.2
    assert rate.wait() == 0.0


def test_pause_saves_up_what_a_second_allows_and_no_more(rate: LimitedRate, hand: Hand) -> None:
    hand.now += 1_000.0
    rate.take(round(10 * BURST))
    assert rate.wait() > 0.0


def test_debt_is_counted_when_it_is_paid(rate: LimitedRate, hand: Hand) -> None:
    rate.take(50)  # of which 10 were saved up
    counted = []
    for _ in range(6):
        hand.now += 1.0
        counted.append(rate.restart_count())
    assert counted == pytest.approx([20.0, 10.0, 10.0, 10.0, 0.0, 0.0])
    assert counted[-1] == 0.0


def test_debt_that_a_removed_limit_forgives_is_not_counted(rate: LimitedRate, hand: Hand) -> None:
    rate.take(50)
    hand.now += 1.0
    rate.restart_count()
    rate.set_rate(None)
    rate.take(3)
    hand.now += 1.0
    assert rate.restart_count() == 3.0


def test_no_more_than_the_rate_is_taken_over_time(rate: LimitedRate, hand: Hand) -> None:
    began, taken = hand.now, 0
    while hand.now < began + 100.0:
        if rate.wait() == 0.0:
            rate.take(7)
            taken += 7
        hand.now += 0.05
    assert 990 <= taken <= 1_000 + 10 + 7


def test_lower_rate_holds_at_once(rate: LimitedRate, hand: Hand) -> None:
    rate.set_rate(1.0)
    rate.take(2)
    assert rate.wait() == pytest.approx(1.0, abs=0.01)
    rate.set_rate(None)
    assert rate.wait() == 0.0


def test_rate_of_nothing_lets_nothing_pass(hand: Hand) -> None:
    rate = LimitedRate(hand)
    rate.set_rate(0.0)
    hand.now += 1_000.0
    assert rate.wait() > 0.0


def test_count_is_an_average_since_the_last_one(rate: LimitedRate, hand: Hand) -> None:
    rate.take(30)
    hand.now += 2.0
    assert rate.restart_count() == 15.0
    hand.now += 1.0
    assert rate.restart_count() == 0.0


async def test_streams_wait_in_their_order() -> None:
    rate, order = LimitedRate(asyncio.get_running_loop().time), list[int]()
    rate.set_rate(1_000.0)
    rate.take(1_020)

    async def stream(number: int) -> None:
        await rate.take_in_turn(10)
        order.append(number)

    waiting = [asyncio.create_task(stream(number)) for number in range(8)]
    gone = asyncio.create_task(stream(99))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*waiting)
    assert order == list(range(8))
    assert gone.cancelled()


@pytest.mark.parametrize(
    ("others", "processes", "share"),
    [
        (0.0, 1, 100.0),  # alone
        (100.0, 2, 50.0),  # the other one takes all: it gives up a half when it learns of this one
        (20.0, 2, 80.0),  # it does not need its half
        (90.0, 4, 25.0),
    ],
)
def test_process_takes_an_equal_part_or_what_the_others_leave(others: float, processes: int, share: float) -> None:
    assert share_of_process(100, others, processes) == share
