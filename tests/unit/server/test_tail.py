"""The tail of a feed: its entries, its limits, and which positions are behind it."""

import asyncio
from datetime import UTC, datetime

import pytest

from server.alerts.subscribers.tail import WOKEN_IN_TURN, Tail
from store.notifications.feed import FeedEntry, NotificationFilter

EVERYTHING = NotificationFilter()


def entry(place: int, customer: str = "ann", body: str = "x") -> FeedEntry:
    return FeedEntry(
        place, f"ntf_{place}", customer, "alt_1", "alert.reached", "c", 1, datetime(2026, 1, 1, tzinfo=UTC), body
    )


def test_a_tail_before_its_first_read_has_no_entries() -> None:
    empty = Tail()
    assert not empty.is_behind(0)
    assert empty.next(0, EVERYTHING) is None


def test_a_tail_begins_at_a_position_and_grows_from_there() -> None:
    grown = Tail()
    news = grown.grown()
    grown.begin(10)
    assert news.is_set()
    news = grown.grown()
    grown.extend([])
    assert not news.is_set()
    grown.extend([entry(11), entry(12, "bob")])
    assert news.is_set()
    assert not grown.grown().is_set()
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
    grown = Tail(**limit)
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
    grown = Tail(max_length=15)
    grown.begin(0)
    grown.extend([entry(place, body="x" * 5) for place in (1, 2, 3)])
    grown.begin(10)
    grown.extend([entry(place, body="x" * 5) for place in (11, 12, 13)])
    assert not grown.is_behind(10)
    grown.extend([entry(14, body="x" * 5)])
    assert [grown.is_behind(place) for place in (10, 11)] == [True, False]


async def test_waiting_subscribers_wake_group_by_group_in_passes_of_the_loop() -> None:
    grown = Tail()
    events = [grown.grown(number) for number in range(2 * WOKEN_IN_TURN)]
    assert events[0] is events[WOKEN_IN_TURN], "subscribers of one group share an event"
    grown.begin(10)
    woken = [sum(event.is_set() for event in events)]
    while not all(event.is_set() for event in events):
        await asyncio.sleep(0)
        woken.append(sum(event.is_set() for event in events))
    assert woken == list(range(2, 2 * WOKEN_IN_TURN + 1, 2))
    # Growth while others are still being woken wakes the ones that have waited since.
    first, last = grown.grown(0), grown.grown(WOKEN_IN_TURN - 1)
    grown.extend([entry(11)])
    assert (first.is_set(), last.is_set()) == (True, False)
    again = grown.grown(WOKEN_IN_TURN - 1)
    grown.extend([entry(12)])
    await asyncio.sleep(0)
    assert last.is_set()
    assert again.is_set()
