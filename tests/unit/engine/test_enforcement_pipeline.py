"""The pipeline of enforcement: groups form by themselves, and a request that fails does not harm its neighbours."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.enforcement.attempts import Answer
from engine.enforcement.commit import EnforcementCommitter
from engine.enforcement.gathering import Gathering
from engine.enforcement.pipeline import EnforcementPipeline
from engine.enforcement.requests import Decided, Release, Request, UnrecordableRequest
from engine.ingest.pending import Overloaded, PendingEvents
from engine.limits import EnforcementLimits
from evaluator.enforcement.decisions import Decision, Outcome, OveragePolicy
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.enforcement.usage import Usage
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST
from tests.support.usage.pipelines import ACME, NOW

pytestmark = pytest.mark.asyncio(loop_scope="function")


class Commits:
    """Replaces the database: requests of some customers fail, and commits wait as the test says."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.groups: list[list[str]] = []
        self.began = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.locked: set[str] = set()  # customers whose commits wait for `unlocked`
        self.unlocked = asyncio.Event()
        self.error: BaseException | None = None

    async def repeated(self, requests: Sequence[Request]) -> list[Answer]:
        self.groups.append([request.customer_id for request in requests])
        self.began.set()
        if self.locked.isdisjoint(self.groups[-1]):
            await self.free.wait()
        else:
            await self.unlocked.wait()
        if self.error is not None:
            raise self.error
        if self.bad.intersection(self.groups[-1]):
            raise RuntimeError("it cannot be recorded")
        decision = Decision(Outcome.ALLOWED, Decimal(1), None)
        return [Decided(decision, RESERVATION) for _ in requests]


RESERVATION = Reservation(
    "r",
    Usage("acme", "calls", Decimal(1), None, None, None, {}, NOW),
    OveragePolicy.DEFAULT,
    ReservationState.OPEN,
    Outcome.ALLOWED,
    Decimal(1),
    None,
    NOW,
    NOW,
)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    commits = Commits()
    monkeypatch.setattr(EnforcementCommitter, "_repeated", lambda _, requests: commits.repeated(requests))
    return commits


def pipeline(
    *, writers: int = 1, pending: int = 1_000, commit_requests: int = 8, slow_commit: float = 3600
) -> EnforcementPipeline:
    return EnforcementPipeline(
        Database("postgresql://nowhere.invalid/x"),
        ManualClock(NOW),
        timedelta(days=3),
        writers=writers,
        pending=PendingEvents(pending, pending),
        gate=FairSemaphore(4),
        limits=EnforcementLimits(
            commit_requests=commit_requests, lane_requests=8, slow_commit=slow_commit, divided_commits=20
        ),
    )


def of(*customers: str) -> list[Request]:
    return [Release(customer, "r") for customer in customers]


async def test_what_waits_during_a_commit_is_the_next_group(commits: Commits) -> None:
    line = pipeline()
    commits.free.clear()
    calls = [asyncio.ensure_future(line.submit(ACME, of("a", "a")))]
    await commits.began.wait()
    calls += [asyncio.ensure_future(line.submit(ACME, of(name, name))) for name in "bcdef"]
    await asyncio.sleep(0)
    commits.free.set()
    answers = await asyncio.gather(*calls)
    assert commits.groups == [list("aa"), list("bbccddee"), list("ff")]
    assert [len(one) for one in answers] == [2] * 6
    await line.drain()


async def test_what_cannot_be_recorded_is_refused_alone(commits: Commits) -> None:
    line = pipeline(commit_requests=100)
    commits.bad = {"c", "f"}
    answers = await line.submit(ACME, of(*"abcdefgh"))
    refused = [isinstance(one, UnrecordableRequest) for one in answers]
    assert refused == [name in commits.bad for name in "abcdefgh"]
    in_order = [name for group in commits.groups for name in group if not commits.bad.intersection(group)]
    assert in_order == list("abdegh")


async def test_divided_commits_are_bounded(commits: Commits) -> None:
    line = pipeline(commit_requests=1_000)
    commits.bad = {"x"}
    answers = await line.submit(ACME, of(*["x"] * 100))
    assert all(isinstance(one, UnrecordableRequest) for one in answers)
    assert len(commits.groups) == 21


async def test_a_call_is_divided_among_writers_and_its_answers_keep_their_order(commits: Commits) -> None:
    line = pipeline(writers=3)
    commits.bad = {"c"}
    names = [name for name in "abcdefghij" for _ in range(2)]
    answers = await line.submit(ACME, of(*names))
    assert [isinstance(one, UnrecordableRequest) for one in answers] == [name == "c" for name in names]
    assert len({tuple(group) for group in commits.groups}) > 2


async def test_few_requests_share_one_lane(commits: Commits) -> None:
    line = pipeline(writers=3)
    commits.free.clear()
    calls = [asyncio.ensure_future(line.submit(ACME, of("a")))]
    await commits.began.wait()
    calls += [asyncio.ensure_future(line.submit(ACME, of(name))) for name in "bcdefg"]
    await asyncio.sleep(0)
    commits.free.set()
    await asyncio.gather(*calls)
    assert commits.groups == [["a"], list("bcdefg")]


async def test_a_customer_keeps_its_lane_while_further_lanes_open(commits: Commits) -> None:
    line = pipeline(writers=3, commit_requests=100)
    commits.free.clear()
    calls = [asyncio.ensure_future(line.submit(ACME, of("a")))]
    await commits.began.wait()
    calls.append(asyncio.ensure_future(line.submit(ACME, of(*"abcdefghij" * 2))))
    for _ in range(5):
        await asyncio.sleep(0)  # another lane does not wait for the commit in progress
    begun = list(commits.groups)
    commits.free.set()
    await asyncio.gather(*calls)
    assert len(begun) > 1
    assert not any("a" in group for group in begun[1:])
    assert [group for group in commits.groups if "a" in group][1][:1] == ["a"]


async def test_other_customers_do_not_wait_for_a_slow_commit(commits: Commits) -> None:
    line = pipeline(writers=2, commit_requests=1, slow_commit=0)
    commits.locked = {"a"}
    calls = [asyncio.ensure_future(line.submit(ACME, of(*names))) for names in ("a", "bc", "ac", "d", "d")]
    await asyncio.gather(*calls[3:])
    await line.submit(ACME, of("e"))  # it comes when the lane is known to be slow
    assert commits.groups == [["a"], ["d"], ["d"], ["e"]]
    commits.unlocked.set()
    await asyncio.gather(*calls)
    # A customer of two calls keeps their order.
    assert commits.groups[4:] == [["b", "c"], ["a", "c"]]


async def test_after_a_large_group_the_next_one_waits_for_half_as_many() -> None:
    gathering = Gathering(longest=3_600)
    gathering.ended(8, 7_200)
    waiting = asyncio.ensure_future(gathering.wait(1))
    for number in (2, 3):
        await asyncio.sleep(0)
        gathering.arrived(number)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    gathering.arrived(4)
    await waiting
    await gathering.wait(4)  # so many wait already


async def test_a_group_waits_no_longer_than_it_may() -> None:
    for longest, seconds in ((0, 7_200), (3_600, 0)):
        gathering = Gathering(longest)
        gathering.ended(8, seconds)
        await gathering.wait(1)
    short = Gathering(longest=0.01)
    short.ended(8, 7_200)
    await short.wait(1)


async def test_after_a_small_group_the_next_one_does_not_wait() -> None:
    for number in range(4):
        gathering = Gathering(longest=3_600)
        gathering.ended(number, 7_200)
        await gathering.wait(1)


async def test_a_failure_of_the_database_is_raised_and_gives_room_up(commits: Commits) -> None:
    line = pipeline(pending=10)
    commits.error = DatabaseUnavailable("away", CONNECTION_LOST)
    with pytest.raises(DatabaseUnavailable):
        await line.submit(ACME, of("a", "b"))
    commits.error = None
    commits.free.clear()
    waiting = asyncio.ensure_future(line.submit(ACME, of(*"abcdefgh")))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await line.submit(ACME, of(*"abc"))
    commits.free.set()
    assert len(await waiting) == 8
    assert len(await line.submit(ACME, of(*"abcdefghij"))) == 10
