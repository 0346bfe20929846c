"""Watched decisions: each is read once for all its streams, and shown when it has changed."""

from datetime import timedelta
from decimal import Decimal

from evaluator.enforcement.decisions import OveragePolicy
from evaluator.limit_windows import LimitWindow, WindowKind
from evaluator.periods import Period
from server.enforcement.watched import Reading, Subscriber, Watch, WatchedOrganization, signature_of
from server.mapping.requested_usage import UsageTemplate
from store.identity.organizations import Organization
from tests.support.enforcement.decisions import MARCH, NOON, decision, limit_state

ACME = Organization(1, "acme-inc")
TOKENS = UsageTemplate("tokens", Decimal(1), None, None, ())
FULL, HALF = decision(Decimal(100)), decision(Decimal(50))


def watch(customer_id: str) -> Watch:
    return Watch(customer_id, TOKENS, OveragePolicy.DEFAULT)


def reading(began: float) -> Reading:
    return Reading(NOON + timedelta(seconds=began), began)


def subscribed(watched: WatchedOrganization, *customer_ids: str) -> Subscriber:
    subscriber = Subscriber(ACME, [watch(customer_id) for customer_id in customer_ids])
    watched.add(subscriber)
    return subscriber


def indexes(subscriber: Subscriber) -> list[int]:
    return list(subscriber.take(10))


def test_decision_is_shown_at_first_and_when_it_changes() -> None:
    watched = WatchedOrganization(ACME, 0.0)
    first, second = subscribed(watched, "a", "b"), subscribed(watched, "b")
    assert watched.decisions == 2
    watched.note(watch("b"), FULL, reading(1), first_of=second)
    assert (indexes(first), indexes(second)) == ([1], [0])
    watched.note(watch("b"), FULL, reading(2))
    assert (indexes(first), indexes(second)) == ([], [])
    watched.note(watch("b"), HALF, reading(3))
    watched.note(watch("b"), decision(Decimal(40)), reading(4))
    taken = first.take(10)
    assert {index: found for index, (found, _) in taken.items()} == {1: decision(Decimal(40))}
    assert indexes(second) == [0]


def test_stream_that_watches_what_another_one_does_gets_it_at_once() -> None:
    watched = WatchedOrganization(ACME, 0.0)
    first = subscribed(watched, "a")
    watched.note(watch("a"), FULL, reading(1), first_of=first)
    indexes(first)
    second = subscribed(watched, "a")
    watched.note(watch("a"), FULL, reading(2), first_of=second)
    assert (indexes(first), indexes(second)) == ([], [0])


def test_read_that_is_overtaken_by_a_later_one_shows_nothing() -> None:
    watched = WatchedOrganization(ACME, 0.0)
    stream = subscribed(watched, "a")
    watched.note(watch("a"), HALF, reading(2), first_of=stream)
    watched.note(watch("a"), FULL, reading(1))
    assert [found for found, _ in stream.take(10).values()] == [HALF]


def test_round_reads_in_parts_what_a_stream_has_shown() -> None:
    watched = WatchedOrganization(ACME, 0.0)
    stream = subscribed(watched, *"abcde")
    assert watched.next_part(10, reading(1)) == []  # nothing was shown yet
    assert watched.end_of_round() == reading(1)
    for customer_id in "abcde":
        watched.note(watch(customer_id), FULL, reading(2), first_of=stream)
    parts = []
    for began in (3, 4, 5):
        parts.append(watched.next_part(2, reading(began)))
        assert watched.end_of_round() == (reading(3) if began == 5 else None)
    assert [[one.customer_id for one in part] for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    assert watched.read_time == reading(3).time
    failed = watched.next_part(2, reading(6))
    watched.go_back(failed)
    assert watched.next_part(2, reading(7)) == failed


def test_streams_that_end_leave_nothing_behind() -> None:
    watched = WatchedOrganization(ACME, 0.0)
    first, second = subscribed(watched, "a", "b", "a"), subscribed(watched, "b")
    watched.note(watch("b"), FULL, reading(1), first_of=second)
    watched.remove(first)
    assert (watched.subscribers, watched.decisions) == (1, 1)
    part = watched.next_part(10, reading(2))
    watched.remove(second)
    assert (watched.subscribers, watched.decisions) == (0, 0)
    watched.note(part[0], HALF, reading(2))  # its read was in progress


def test_decision_that_was_not_sent_is_not_put_before_a_later_one() -> None:
    stream = Subscriber(ACME, [watch("a"), watch("b")])
    stream.note(0, FULL, reading(1))
    stream.note(1, FULL, reading(1))
    [index, *_] = taken = stream.take(1)
    assert index == 0
    stream.note(0, HALF, reading(2))
    stream.put_back(0, *taken[0])
    assert {index: found for index, (found, _) in stream.take(10).items()} == {1: FULL, 0: HALF}


def test_rolling_window_that_moves_is_no_change_and_another_period_is() -> None:
    april = Period(MARCH.end, MARCH.end + timedelta(days=30))
    for window, changes in ((LimitWindow(WindowKind.ROLLING, 60), False), (LimitWindow(), True)):
        state = limit_state(Decimal(100), window=window)
        moved = limit_state(Decimal(100), window=window)
        object.__setattr__(moved, "span", april)
        before, after = decision(Decimal(100)), decision(Decimal(100))
        object.__setattr__(before, "limit", state)
        object.__setattr__(after, "limit", moved)
        assert (signature_of(before) != signature_of(after)) == changes
    assert signature_of(ValueError("x")) != signature_of(ValueError("y"))
