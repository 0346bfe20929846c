"""The pipeline keeps no failed and no finished batch in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.ingest import pipeline as pipelines
from engine.ingest.batches import Batch, Outcome
from engine.ingest.pending import Overloaded, PendingEvents
from engine.ingest.pipeline import LARGE_COMMIT, Pipeline
from engine.limits import DEFAULT_LIMITS, IngestLimits
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from runtime.turns import of_loop
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable

# A loop for each test: a neighbour of one test would still count in the next.
pytestmark = pytest.mark.asyncio(loop_scope="function")

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
LIMIT = 10  # seconds for each step of a test


@dataclass
class Commits:
    """Replaces the database: commits end as the test says.

    failures: the exceptions of the next commits. held: commits wait for it. log: customers whose events began, or
    ended, to be committed. refused: customers whose events a commit cannot record; divided: commits that are
    divided for that wait for it.
    """

    failures: list[BaseException] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[tuple[str, str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    divided: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.held.set()
        self.divided.set()

    async def together(self, batches: Sequence[Batch]) -> list[Outcome] | None:
        names = [batch.events[0].customer_id for batch in batches]
        self.log += [("began", name) for name in names]
        await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.refused.intersection(event.customer_id for batch in batches for event in batch.events):
            return None
        self.log += [("ended", name) for name in names]
        return [Outcome(accepted=len(batch.events)) for batch in batches]

    async def contain(self, batches: Sequence[Batch], between: Callable[[], Awaitable[None]]) -> list[Outcome]:
        names = [batch.events[0].customer_id for batch in batches]
        await self.divided.wait()
        await between()
        self.log += [("divided", name) for name in names]
        return [Outcome(unrecorded=list(range(len(batch.events)))) for batch in batches]


def batch(customer: str = "acme", size: int = 1) -> Batch:
    return Batch([UsageEvent(f"e{n}", customer, NOW, "calls", Decimal(1), None, None, None, {}) for n in range(size)])


def one_event(event_id: str) -> UsageEvent:
    """An event with this id."""
    return UsageEvent(event_id, "acme", NOW, "calls", Decimal(1), None, None, None, {})


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    """The committer of all pipelines of a test."""
    made = Commits()
    monkeypatch.setattr(pipelines, "Committer", lambda *_, **__: made)
    return made


def pipeline(
    writers: int = 1,
    pending: int = 10,
    limits: IngestLimits = DEFAULT_LIMITS.ingest,
    waiting: PendingEvents | None = None,
    gate: FairSemaphore | None = None,
) -> Pipeline:
    nothing: Any = None
    # Twice as many as one organization may have: only the organization's limit is reached in these tests.
    waiting = waiting or PendingEvents(2 * pending, pending)
    return Pipeline(
        nothing,
        ManualClock(NOW),
        timedelta(days=34),
        RulesRegistry(),
        writers=writers,
        pending=waiting,
        gate=gate or FairSemaphore(2 * writers),
        limits=limits,
    )


async def submit(lanes: Pipeline, organization: Organization, batch: Batch) -> Outcome:
    """Commits a batch as a unary call does."""
    room = await lanes.admit(organization, len(batch.events))
    try:
        return await lanes.submit(organization, batch, room)
    finally:
        room.give_up()


ACME = Organization(1, "acme")


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), ValueError("a bug")])
async def test_events_of_a_failed_commit_leave_the_pipeline(commits: Commits, error: Exception) -> None:
    lanes = pipeline()
    for _ in range(5):
        commits.failures = [error]
        async with asyncio.timeout(LIMIT):
            with pytest.raises(type(error)):
                await submit(lanes, ACME, batch(size=10))
    # The full limit is accepted immediately, as before the failures.
    async with asyncio.timeout(LIMIT):
        done = await asyncio.gather(submit(lanes, ACME, batch(size=5)), submit(lanes, ACME, batch(size=5)))
    assert [one.accepted for one in done] == [5, 5]


async def test_pending_events_are_counted_until_they_are_committed(commits: Commits) -> None:
    lanes = pipeline()
    for _ in range(3):
        commits.held.clear()
        tasks = [asyncio.create_task(submit(lanes, ACME, batch(size=5))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await submit(lanes, ACME, batch())
        commits.held.set()
        async with asyncio.timeout(LIMIT):
            assert [one.accepted for one in await asyncio.gather(*tasks)] == [5, 5]


async def test_a_cancelled_call_does_not_cancel_its_commit(commits: Commits) -> None:
    lanes = pipeline()
    commits.held.clear()
    leaving = asyncio.create_task(submit(lanes, ACME, batch(size=10)))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await lanes.drain()
        assert (await submit(lanes, ACME, batch(size=10))).accepted == 10
    assert commits.log == [(what, "acme") for what in ("began", "ended") * 2]


async def test_a_cancelled_writer_is_replaced(commits: Commits) -> None:
    lanes = pipeline()
    commits.failures = [asyncio.CancelledError()]
    leaving = asyncio.create_task(submit(lanes, ACME, batch(size=10)))
    async with asyncio.timeout(LIMIT):
        for _ in range(5):
            await asyncio.sleep(0)
        await lanes.drain()
        assert not commits.failures
        leaving.cancel()
        assert (await submit(lanes, ACME, batch(size=10))).accepted == 10


async def test_a_batch_fails_after_all_its_parts_have_ended(commits: Commits) -> None:
    lanes = pipeline(writers=2, pending=1000)
    customers = [f"c{number}" for number in range(20)]  # customers of both writers
    commits.failures = [DatabaseUnavailable("gone")]
    events = [one.events[0] for one in map(batch, customers)]
    async with asyncio.timeout(LIMIT):
        with pytest.raises(DatabaseUnavailable):
            await submit(lanes, ACME, Batch(events))
    assert [what for what, _ in commits.log].count("ended") == 1
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, Batch(events))).accepted == 20


async def test_an_organization_keeps_its_writers_during_a_commit_when_idle_ones_are_removed(
    commits: Commits,
) -> None:
    lanes = pipeline(pending=100, limits=IngestLimits(idle_organizations=1))
    commits.held.clear()
    first = asyncio.create_task(submit(lanes, ACME, batch("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    other = asyncio.create_task(submit(lanes, Organization(2, "other"), batch("other")))
    await asyncio.sleep(0)
    # Events of a customer are committed in their order: not concurrently with earlier ones.
    second = asyncio.create_task(submit(lanes, ACME, batch("second")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert ("began", "second") not in commits.log
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(first, other, second)
    assert commits.log.index(("began", "second")) > commits.log.index(("ended", "first"))


async def test_a_group_commit_takes_no_more_events_than_its_limit(commits: Commits) -> None:
    lanes = pipeline(pending=1000, limits=IngestLimits(commit_events=4))
    commits.held.clear()
    sizes = {"a": 1, "b": 3, "c": 2, "d": 1, "e": 9, "f": 1}
    tasks = [asyncio.create_task(submit(lanes, ACME, batch(name, size))) for name, size in sizes.items()]
    for _ in range(3):
        await asyncio.sleep(0)
    commits.held.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*tasks)
    groups = "".join(name if what == "began" else "|" for what, name in commits.log).replace("||", "|")
    assert groups == "ab|cd|e|f|"


@dataclass
class Parts:
    """Replaces the database: notes the ids of the events of each commit; the commit of one event fails.

    Of each commit, the first event is a duplicate. observe: called in each commit; its results are `observed`.
    """

    failing: str | None = None
    commits: list[list[str]] = field(default_factory=list)
    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    observe: Callable[[], int] = field(default=lambda: 0)
    observed: list[int] = field(default_factory=list)

    async def together(self, batches: Sequence[Batch]) -> list[Outcome]:
        await self.may_go.wait()
        self.observed.append(self.observe())
        self.commits.append([event.event_id for batch in batches for event in batch.events])
        if self.failing in self.commits[-1]:
            raise DatabaseUnavailable("gone")
        return [Outcome(accepted=len(batch.events) - 1, duplicates=[0]) for batch in batches]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The committer of all pipelines of a test."""
    made = Parts()
    monkeypatch.setattr(pipelines, "Committer", lambda *_, **__: made)
    return made


SMALL_BESIDE_LIGHT = IngestLimits(commit_events=100, commit_events_beside_light=4)
LIGHT = 77


async def test_a_large_batch_is_committed_in_parts_while_a_light_neighbour_has_a_call(parts: Parts) -> None:
    lanes = pipeline(pending=1000, limits=SMALL_BESIDE_LIGHT)
    of_loop().begin_call(LIGHT)
    large = asyncio.create_task(submit(lanes, ACME, batch(size=10)))
    small = [asyncio.create_task(submit(lanes, ACME, batch(f"c{number}", 2))) for number in range(3)]
    await asyncio.sleep(0)
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        outcome = await large
        await asyncio.gather(*small)
    assert parts.commits == [
        ["e0", "e1", "e2", "e3"],
        ["e4", "e5", "e6", "e7"],
        ["e8", "e9", "e0", "e1"],  # the rest, with the next batch
        ["e0", "e1", "e0", "e1"],
    ]
    assert (outcome.accepted, outcome.duplicates) == (7, [0, 4, 8]), "indexes are those in the batch"
    of_loop().end_call(LIGHT)
    of_loop().used_up(LIGHT)  # it does not count as a light neighbour any more
    parts.commits.clear()
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, batch(size=10))).duplicates == [0]
    assert [len(commit) for commit in parts.commits] == [10], "without a light neighbour it is one commit"


async def test_what_is_left_of_a_large_batch_is_not_tried_after_a_part_has_failed(parts: Parts) -> None:
    lanes = pipeline(pending=20, limits=SMALL_BESIDE_LIGHT)
    parts.may_go.set()
    of_loop().begin_call(LIGHT)
    parts.failing = "e5"
    for _ in range(3):  # nothing of it stays pending
        parts.commits.clear()
        async with asyncio.timeout(LIMIT):
            with pytest.raises(DatabaseUnavailable):
                await submit(lanes, ACME, batch(size=20))
        assert parts.commits == [["e0", "e1", "e2", "e3"], ["e4", "e5", "e6", "e7"]]
    parts.failing = None
    async with asyncio.timeout(LIMIT):
        assert (await submit(lanes, ACME, batch(size=20))).accepted == 15
    of_loop().end_call(LIGHT)


async def test_room_of_a_committed_part_is_free_before_the_rest_is_committed(parts: Parts) -> None:
    pending = PendingEvents(100, 50)
    lanes = pipeline(waiting=pending, limits=SMALL_BESIDE_LIGHT)
    of_loop().begin_call(LIGHT)
    parts.observe = lambda: pending.total
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        await submit(lanes, ACME, batch(size=10))
    assert parts.observed == [10, 6, 2]
    assert pending.total == 0
    of_loop().end_call(LIGHT)


async def test_an_organization_that_holds_nothing_commits_while_another_has_all_it_may(parts: Parts) -> None:
    lanes = pipeline(writers=2, pending=10_000)
    noisy = [asyncio.create_task(submit(lanes, ACME, batch(f"c{number}", 20))) for number in range(100)]
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = asyncio.create_task(submit(lanes, Organization(2, "quiet"), batch("quiet")))
    for _ in range(5):
        await asyncio.sleep(0)
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        await quiet
        position = parts.commits.index(["e0"])
        await asyncio.gather(*noisy)
    assert position <= 2, "it waits for no further commit of the other"


async def test_other_organizations_commit_between_the_commits_that_divide_a_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order, quiet_waits = list[str](), asyncio.Event()

    class Dividing:
        """Replaces the database: what `noisy` sends takes three commits."""

        def __init__(self, *_: object, between_commits: Callable[[], Awaitable[None]], **__: object) -> None:
            self._between_commits = between_commits

        async def together(self, batches: Sequence[Batch]) -> list[Outcome]:
            if batches[0].events[0].customer_id == "noisy":
                for number in range(3):
                    order.append(f"noisy {number}")
                    await quiet_waits.wait()
                    await self._between_commits()
            else:
                order.append("quiet")
            return [Outcome() for _ in batches]

    monkeypatch.setattr(pipelines, "Committer", Dividing)
    gate = FairSemaphore(1)
    lanes = pipeline(gate=gate)
    noisy = asyncio.create_task(submit(lanes, ACME, batch("noisy")))
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = asyncio.create_task(submit(lanes, Organization(2, "quiet"), batch("quiet")))
    for _ in range(5):
        await asyncio.sleep(0)
    quiet_waits.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(noisy, quiet)
        await lanes.drain()
    assert order == ["noisy 0", "quiet", "noisy 1", "noisy 2"]
    assert gate.free == 1


async def test_large_commits_of_many_organizations_leave_a_reserved_seat_to_a_small_one(parts: Parts) -> None:
    lanes = pipeline(pending=100_000, gate=FairSemaphore(4, reserved=1))
    floods = [
        asyncio.create_task(submit(lanes, Organization(10 + number, "noisy"), batch(size=LARGE_COMMIT + 1)))
        for number in range(8)
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = asyncio.create_task(submit(lanes, ACME, Batch([one_event("quiet")])))
    for _ in range(5):
        await asyncio.sleep(0)
    parts.may_go.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(quiet, *floods)
    assert parts.commits.index(["quiet"]) <= 3, "it waits for none of the commits that wait"


def batch_of(*customers: str) -> Batch:
    """A batch with one event of each customer."""
    return Batch([UsageEvent("e", one, NOW, "calls", Decimal(1), None, None, None, {}) for one in customers])


async def begun(lanes: Pipeline, commits: Commits, *customers: str) -> asyncio.Task[Outcome]:
    """The call that submits a batch of these customers, when its commit has begun."""
    call = asyncio.create_task(submit(lanes, ACME, batch_of(*customers)))
    for _ in range(20):  # passes of the loop, of which the begin takes a few
        await asyncio.sleep(0)
    assert ("began", customers[0]) in commits.log
    return call


async def test_batches_of_other_customers_do_not_wait_for_a_division(commits: Commits) -> None:
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        bad = await begun(lanes, commits, "bad", "with it")
        assert (await submit(lanes, ACME, batch_of("other"))).accepted == 1
        assert (await submit(lanes, ACME, batch_of("another"))).accepted == 1
        assert not bad.done()
        commits.divided.set()
        assert (await bad).unrecorded == [0, 1]
        await lanes.drain()


async def test_batches_of_a_customer_in_division_wait_and_keep_their_order(commits: Commits) -> None:
    """Also those that wait only because they share a customer with a batch that waits."""
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        first = await begun(lanes, commits, "bad")
        commits.refused = set()
        waiting = [
            asyncio.create_task(submit(lanes, ACME, batch_of(*customers)))
            for customers in (("behind", "bad"), ("behind",), ("bad",))
        ]
        await asyncio.sleep(0)
        await submit(lanes, ACME, batch_of("free"))
        assert not any(one.done() for one in (first, *waiting))
        commits.divided.set()
        await asyncio.gather(first, *waiting)
    ended = [entry for entry in commits.log if entry[0] != "began"]
    assert ended == [
        ("ended", "free"),
        ("divided", "bad"),
        ("ended", "behind"),
        ("ended", "behind"),
        ("ended", "bad"),
    ]


async def test_a_drain_waits_for_a_division(commits: Commits) -> None:
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        bad = await begun(lanes, commits, "bad")
        await submit(lanes, ACME, batch_of("other"))
        draining = asyncio.create_task(lanes.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        commits.divided.set()
        await draining
        assert (await bad).unrecorded == [0]


async def test_a_second_division_of_a_writer_waits_in_its_order(commits: Commits) -> None:
    """The commit that fails beside a division is divided by the writer itself."""
    lanes = pipeline(pending=100, gate=FairSemaphore(4))
    commits.refused = {"bad", "worse"}
    commits.divided.clear()
    async with asyncio.timeout(LIMIT):
        both = [await begun(lanes, commits, one) for one in ("bad", "worse")]
        other = asyncio.create_task(submit(lanes, ACME, batch_of("other")))
        commits.divided.set()
        assert [outcome.unrecorded for outcome in await asyncio.gather(*both)] == [[0], [0]]
        assert (await other).accepted == 1


async def test_a_failed_part_of_a_large_batch_is_divided_before_the_next_part(commits: Commits) -> None:
    limits = IngestLimits(commit_events_beside_light=2)
    lanes = pipeline(pending=100, limits=limits)
    commits.refused = {"acme"}
    turns = of_loop()
    turns.begin_call("neighbour")
    async with asyncio.timeout(LIMIT):
        outcome = await submit(lanes, ACME, batch(size=5))
    turns.end_call("neighbour")
    turns.used_up("neighbour")
    assert outcome.unrecorded == [0, 1, 2, 3, 4]
    assert commits.log == [("began", "acme"), ("divided", "acme")] * 3
