"""The watching of decisions: the first state at once, changes by polls, and a share for each organization."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from evaluator.enforcement.decisions import OveragePolicy
from runtime.clock import ManualClock
from server.calls.errors import ResourceExhausted
from server.enforcement.watched import Subscriber, Watch, WatchedOrganization
from server.enforcement.watching import DecisionWatch
from server.mapping.requested_usage import UsageTemplate
from store.identity.organizations import Organization
from store.postgres import failures
from store.postgres.database import DatabaseUnavailable
from store.postgres.failures import Failure
from tests.support.enforcement.decisions import NOON, CheckerInMemory

pytestmark = pytest.mark.asyncio(loop_scope="function")

ACME, OTHER = Organization(1, "acme-inc"), Organization(2, "other")
TOKENS = UsageTemplate("tokens", Decimal(1), None, None, ())
LIMIT = 60.0  # seconds until a test that waits for something fails


@asynccontextmanager
async def watching(checker: CheckerInMemory, **limits: int) -> AsyncIterator[DecisionWatch]:
    """A watch that polls as fast as it may."""
    watch = DecisionWatch(
        checker,
        ManualClock(NOON),
        max_watchers=limits.get("max_watchers", 100),
        organization_watchers=limits.get("organization_watchers", 50),
        interval=0.001,
        most_decisions=limits.get("most_decisions", 10_000),
    )
    watch.start()
    try:
        yield watch
    finally:
        await watch.stop()


def watches(*customer_ids: str) -> list[Watch]:
    return [Watch(customer_id, TOKENS, OveragePolicy.DEFAULT) for customer_id in customer_ids]


async def first_of(watch: DecisionWatch, subscriber: Subscriber) -> list[int]:
    """The indexes of all first decisions."""
    found = []
    async for _ in watch.read_first(subscriber):
        found += list(subscriber.take(1_000_000))
    return found


async def next_of(subscriber: Subscriber) -> dict[int, Decimal]:
    """What remains, of the decisions that change next."""
    async with asyncio.timeout(LIMIT):
        await subscriber.changed(LIMIT)
    found = {}
    for index, (decided, _) in subscriber.take(100).items():
        assert not isinstance(decided, Exception)
        assert decided.limit is not None
        found[index] = decided.limit.remaining
    return found


async def test_first_decisions_come_at_once_and_changes_follow() -> None:
    checker = CheckerInMemory()
    async with watching(checker) as watch:
        stream = watch.subscribe(ACME, watches("a", "b"))
        assert await first_of(watch, stream) == [0, 1]
        checker.left[1, "b"] = Decimal(7)
        assert await next_of(stream) == {1: 7}
        checker.left[1, "b"] = Decimal(0)
        checker.left[2, "a"] = Decimal(0)  # of the other organization
        assert await next_of(stream) == {1: 0}
        watch.leave(stream)
        assert (watch.watchers, watch.decisions) == (0, 0)


async def test_streams_of_the_same_decisions_share_one_read() -> None:
    checker = CheckerInMemory()
    async with watching(checker) as watch:
        streams = [watch.subscribe(ACME, watches("a", "b")) for _ in range(5)]
        for stream in streams:
            await first_of(watch, stream)
        assert watch.decisions == 2
        checker.calls.clear()
        checker.left[1, "a"] = Decimal(3)
        assert [await next_of(stream) for stream in streams] == [{0: 3}] * 5
        assert {number for _, number in checker.calls} <= {1, 2}  # the one that changed, and rounds over both


async def test_rounds_find_what_looks_do_not() -> None:
    """What plans and time change."""
    checker = CheckerInMemory()
    checker.finds_changes = False
    async with watching(checker) as watch:
        stream = watch.subscribe(ACME, watches("a", "b"))
        await first_of(watch, stream)
        checker.left[1, "b"] = Decimal(7)
        assert await next_of(stream) == {1: 7}


async def test_a_change_is_read_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of decisions, only those of the customer that has changed."""
    checker = CheckerInMemory()
    monkeypatch.setattr(DecisionWatch, "_go_round", _no_round)
    async with watching(checker) as watch:
        names = [f"c{number}" for number in range(600)]
        stream = watch.subscribe(ACME, watches(*names))
        await first_of(watch, stream)
        await checker.until_looked()
        checker.checked.clear()
        checker.left[1, "c599"] = Decimal(7)
        assert await next_of(stream) == {599: 7}
        assert dict(checker.checked) == {"c599": 1}
        watch.leave(stream)
        assert watch.decisions == 0


async def _no_round(_: DecisionWatch, watched: WatchedOrganization) -> None:
    watched.round_due = math.inf


async def test_nothing_is_read_while_nothing_is_watched() -> None:
    checker = CheckerInMemory()
    async with watching(checker) as watch:
        stream = watch.subscribe(ACME, watches("a"))
        await first_of(watch, stream)
        checker.left[1, "a"] = Decimal(5)
        await next_of(stream)
        watch.leave(stream)
        await asyncio.sleep(0.02)
        number = len(checker.calls)
        await asyncio.sleep(0.02)
        assert len(checker.calls) == number


@pytest.mark.parametrize("failure", [failures.CONNECTION_LOST, failures.LOCK_TIMEOUT], ids=lambda one: one.kind)
async def test_watch_goes_on_after_the_database_was_away(failure: Failure) -> None:
    checker = CheckerInMemory()
    async with watching(checker) as watch:
        stream = watch.subscribe(ACME, watches("a"))
        await first_of(watch, stream)
        checker.failure = DatabaseUnavailable("away", failure)
        calls = len(checker.calls)
        await checker.until(lambda: len(checker.calls) > calls)
        checker.left[1, "a"] = Decimal(9)
        checker.failure = None
        assert await next_of(stream) == {0: 9}


async def test_organization_with_many_decisions_leaves_the_others_their_share() -> None:
    checker = CheckerInMemory()
    async with watching(checker, most_decisions=20_000, max_watchers=100) as watch:
        large = watch.subscribe(ACME, watches(*(f"c-{number}" for number in range(5_000))))
        small = watch.subscribe(OTHER, watches("a"))
        assert len(await first_of(watch, large)) == 5_000
        assert await first_of(watch, small) == [0]
        checker.calls.clear()
        await checker.until(lambda: sum(one == 1 for one, _ in checker.calls) >= 12)
        # While the large one has its parts, the small one is read again and again.
        assert sum(one == 2 for one, _ in checker.calls) > 12
        assert max(number for _, number in checker.calls) == 500


async def test_streams_and_decisions_of_one_organization_are_bounded() -> None:
    checker = CheckerInMemory()
    async with watching(checker, max_watchers=20, most_decisions=4_000) as watch:
        held = [watch.subscribe(ACME, watches("a")) for _ in range(10)]
        with pytest.raises(ResourceExhausted, match="10 open streams") as raised:
            watch.subscribe(ACME, watches("a"))
        assert raised.value.metadata == {"limit": "10"}
        many = watches(*(f"c-{number}" for number in range(3_999)))
        held.append(watch.subscribe(OTHER, watches("a")))
        with pytest.raises(ResourceExhausted, match="1 watched decisions"):
            watch.subscribe(OTHER, many)
        others = [watch.subscribe(Organization(number, str(number)), watches("a")) for number in range(3, 60)]
        assert len(others) == 57  # each has its guaranteed streams, whatever others hold
        for subscriber in (*held, *others):
            watch.leave(subscriber)
        assert watch.watchers == 0
