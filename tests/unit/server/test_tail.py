"""The tail of a feed: its entries, its limits, and which positions are behind it."""

import asyncio
import itertools
from datetime import UTC, datetime

import pytest

from runtime.turns import PIECE, SLICE, Pieces
from server.alerts.subscribers.tail import Tail
from store.notifications.feed import FeedEntry, NotificationFilter

EVERYTHING = NotificationFilter()


def tail(**limits: int) -> Tail:
    return Tail(Pieces("organization"), **limits)


def entry(place: int, customer: str = "ann", body: str = "x") -> FeedEntry:
    return FeedEntry(
        place, f"ntf_{place}", customer, "alt_1", "alert.reached", "c", 1, datetime(2026, 1, 1, tzinfo=UTC), body
    )


def test_a_tail_before_its_first_read_has_no_entries() -> None:
    empty = tail()
    assert not empty.is_behind(0)
    assert empty.next(0, EVERYTHING) is None


async def test_a_tail_begins_at_a_position_and_grows_from_there() -> None:
    grown = tail()
    wait = grown.waits.begin(0)
    grown.begin(10)
    await wait
    assert grown.growths == 1
    wait = grown.waits.begin(0)
    grown.extend([])
    grown.waits.forget(0)
    grown.extend([entry(11), entry(12, "bob")])
    await asyncio.sleep(SLICE)
    assert not wait.done(), "a wait that is forgotten does not end"
    assert grown.growths == 2
    assert grown.position == 12
    assert [grown.is_behind(place) for place in (9, 10, 11, 12, 13)] == [True, False, False, False, False]
    assert grown.next(10, EVERYTHING) == entry(11)
    assert grown.next(10, NotificationFilter(customer_ids=("bob",))) == entry(12, "bob")
    assert grown.next(10, NotificationFilter(customer_ids=("cid",))) is None
    # A subscriber can have a position that this server has not read yet.
    assert grown.next(20, EVERYTHING) is None
    grown.begin(30)
    assert grown.is_behind(12)
    assert grown.next(30, EVERYTHING) is None


@pytest.mark.parametrize("limit", [{"max_entries": 3}, {"max_length": 3 * 5}], ids=["entries", "length"])
def test_a_tail_removes_its_oldest_entries_above_its_limits(limit: dict[str, int]) -> None:
    grown = tail(**limit)
    grown.begin(0)
    grown.extend([entry(place, body="12345") for place in range(1, 5)])
    assert [grown.is_behind(place) for place in (0, 1)] == [True, False]
    grown.extend([entry(5, body="123456")])
    assert not grown.is_behind(3)
    assert grown.is_behind(1)
    grown.extend([entry(6, body="")])
    assert grown.next(3, EVERYTHING) == entry(4, body="12345")


def test_a_notification_is_sent_only_if_it_passes_each_filter() -> None:
    one = entry(1)
    for fits in (
        NotificationFilter(customer_ids=("bob", "ann")),
        NotificationFilter(alert_ids=("alt_1",)),
        NotificationFilter(condition_types=("c",)),
        NotificationFilter(event_types=("alert.reached",)),
        NotificationFilter(("ann",), ("alt_1",), ("c",), ("alert.reached",)),
    ):
        assert fits.matches(one)
    for fits_not in (
        NotificationFilter(customer_ids=("bob",)),
        NotificationFilter(alert_ids=("alt_2",)),
        NotificationFilter(condition_types=("d",)),
        NotificationFilter(event_types=("alert.resolved",)),
        NotificationFilter(("ann",), ("alt_1",), ("c",), ("alert.resolved",)),
    ):
        assert not fits_not.matches(one)


def test_a_tail_that_begins_again_has_its_full_limits() -> None:
    grown = tail(max_length=15)
    grown.begin(0)
    grown.extend([entry(place, body="x" * 5) for place in (1, 2, 3)])
    grown.begin(10)
    grown.extend([entry(place, body="x" * 5) for place in (11, 12, 13)])
    assert not grown.is_behind(10)
    grown.extend([entry(14, body="x" * 5)])
    assert [grown.is_behind(place) for place in (10, 11)] == [True, False]


async def test_waiting_subscribers_continue_a_few_in_each_pass_of_the_loop() -> None:
    grown = tail()
    waits = [grown.waits.begin(number) for number in range(1_000)]
    grown.begin(10)
    ended = [0]
    while ended[-1] < len(waits):
        await asyncio.sleep(0)
        ended.append(sum(wait.done() for wait in waits))
        assert all(wait.done() for wait in waits[: ended[-1]]), "they continue in the order of their waits"
    most = int(SLICE / PIECE)
    assert max(after - before for before, after in itertools.pairwise(ended)) <= most
    # Growth while others still wait for their turn ends the waits that have begun since, after them.
    waits = [grown.waits.begin(number) for number in range(2 * most)]
    grown.extend([entry(11)])
    last = grown.waits.begin(0)
    grown.extend([entry(12)])
    await last
    assert all(wait.done() for wait in waits)
