"""Pending events: an organization's share, refusals of an organization and of the server, counts that return to 0."""

import asyncio
import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ingest import pipeline
from engine.ingest.batches import Batch, Outcome
from engine.ingest.pending import Overloaded, PendingEvents, Room
from engine.ingest.pipeline import Pipeline
from evaluator.events import UsageEvent
from runtime.fair_semaphore import FairSemaphore
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from tests.support.usage.pipelines import NOW, submit
from tests.support.usage.pipelines import pipeline as new_pipeline

NOISY, QUIET = Organization(1, "noisy"), Organization(2, "quiet")


def batch(size: int) -> Batch:
    """Events of several customers, so that every writer gets some."""
    return Batch(
        [
            UsageEvent(f"e{number}", f"c{number}", NOW, "calls", Decimal(1), None, None, None, {})
            for number in range(size)
        ]
    )


class Commits:
    """Replaces the database: commits when the test allows it, or fails."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.error: BaseException | None = None

    gauges_moved = 0

    def __call__(self, *_: Any, **__: Any) -> "Commits":
        return self

    async def together(self, batches: list[Batch]) -> list[Outcome]:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [Outcome(accepted=len(one.events)) for one in batches]


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    fake = Commits()
    monkeypatch.setattr(pipeline, "Committer", fake)
    return fake


def a_pipeline(pending: PendingEvents, gate: FairSemaphore) -> Pipeline:
    return new_pipeline(writers=2, waiting=pending, gate=gate)


async def send(through: Pipeline, organization: Organization, size: int, *, waits: bool = False) -> Outcome:
    return await submit(through, organization, batch(size), waits=waits)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_pending_events_of_one_organization_leave_room_for_another(commits: Commits) -> None:
    pending = PendingEvents(100, 100)
    through = a_pipeline(pending, FairSemaphore(4))
    sent = [asyncio.create_task(send(through, NOISY, 10)) for _ in range(20)]
    await settled()
    refused = [one.exception() for one in sent if one.done()]
    assert len(refused) == 15, "an organization may use no more than it leaves free"
    for error in refused:
        assert isinstance(error, Overloaded)
        assert error.pending_of_organization == 50
    quiet = asyncio.create_task(send(through, QUIET, 25))
    await settled()
    assert pending.total == 75
    commits.go.set()
    assert (await quiet).accepted == 25
    assert [(await one).accepted for one in sent if one.exception() is None] == [10] * 5
    assert pending.total == 0


async def test_pending_events_of_an_organization_have_their_own_limit(commits: Commits) -> None:
    through = a_pipeline(PendingEvents(1_000, 30), FairSemaphore(4))
    sent = [asyncio.create_task(send(through, NOISY, 20)) for _ in range(2)]
    await settled()
    assert [one.done() for one in sent] == [False, True]
    assert isinstance(sent[1].exception(), Overloaded)
    commits.go.set()
    await sent[0]


async def test_a_refusal_of_a_full_server_names_no_organizations_count() -> None:
    pending = PendingEvents(100, 100)
    await pending.admit(1, 50, waits=False)
    await pending.admit(2, 40, waits=False)
    with pytest.raises(Overloaded) as refused:
        await pending.admit(3, 20, waits=False)
    assert refused.value.pending_of_organization is None


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), ValueError("a bug")])
async def test_events_of_a_failed_commit_are_not_pending_any_more(commits: Commits, error: Exception) -> None:
    pending, gate = PendingEvents(100, 100), FairSemaphore(4)
    through = a_pipeline(pending, gate)
    commits.error = error
    commits.go.set()
    for _ in range(20):  # each retry is admitted
        with pytest.raises(type(error)):
            await send(through, NOISY, 50)
        assert (pending.total, gate.free) == (0, 4)
    commits.error = None
    assert (await send(through, NOISY, 50)).accepted == 50
    assert (pending.total, gate.free) == (0, 4)


async def test_events_of_a_cancelled_call_are_pending_until_they_are_committed(commits: Commits) -> None:
    pending = PendingEvents(100, 100)
    through = a_pipeline(pending, FairSemaphore(4))
    gone = asyncio.create_task(send(through, NOISY, 40))
    await settled()
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    assert pending.total == 40
    commits.go.set()
    await through.drain()
    assert pending.total == 0


async def test_room_for_rejected_events_is_released(commits: Commits) -> None:
    pending = PendingEvents(100, 100)
    through = a_pipeline(pending, FairSemaphore(4))
    commits.go.set()
    room = await through.admit(NOISY, 40)
    assert (await through.submit(NOISY, batch(10), room)).accepted == 10
    assert pending.total == 30
    room.give_up()
    room.give_up()
    assert pending.total == 0


async def test_streams_wait_for_room_in_turns_and_in_their_order() -> None:
    pending, order = PendingEvents(10, 10), list[str]()
    held = await pending.admit(9, 10, waits=False)

    async def stream(name: str, organization_id: int) -> None:
        room = await pending.admit(organization_id, 4, waits=True)
        order.append(name)
        await asyncio.sleep(0)
        room.give_up()

    waiting = [asyncio.create_task(stream(name, int(name[0]))) for name in ("1a", "1b", "1c", "2a", "3a", "2b")]
    await settled()
    # A call that does not wait does not overtake waiting streams of its organization.
    with pytest.raises(Overloaded):
        await pending.admit(1, 1, waits=False)
    held.give_up()
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    assert [name for name in order if name[0] == "1"] == ["1a", "1b", "1c"]
    assert order.index("2a") < order.index("1b"), "organizations have turns"
    assert order.index("3a") < order.index("1b")
    assert pending.total == 0


async def test_a_cancelled_wait_for_room_is_not_pending() -> None:
    pending = PendingEvents(10, 10)
    held = await pending.admit(1, 10, waits=False)
    large, small = (asyncio.create_task(pending.admit(2, size, waits=True)) for size in (9, 2))
    await settled()
    large.cancel()
    held.give_up()
    room = await small
    # Cancelled at the time when it is admitted.
    late = asyncio.create_task(pending.admit(2, 5, waits=True))
    await settled()
    room.give_up()
    late.cancel()
    await asyncio.gather(large, late, return_exceptions=True)
    if not late.cancelled():
        late.result().give_up()
    assert pending.total == 0
    (await pending.admit(2, 10, waits=False)).give_up()


async def test_a_batch_larger_than_the_limit_is_admitted_when_nothing_is_pending() -> None:
    pending = PendingEvents(10, 10)
    held = await pending.admit(1, 1, waits=False)
    with pytest.raises(Overloaded):
        await pending.admit(2, 40, waits=False)
    held.give_up()
    (await pending.admit(2, 40, waits=False)).give_up()
    assert pending.total == 0


async def test_many_organizations_with_large_batches_leave_room_for_one_without_pending_events() -> None:
    pending = PendingEvents(100_000, 50_000, beside=1_000)
    floods = [await pending.admit(100 + number, 5_000, waits=False) for number in range(20)]
    with pytest.raises(Overloaded):
        await pending.admit(200, 5_000, waits=False)
    quiet = [await pending.admit(QUIET.organization_id, 500, waits=False) for _ in range(2)]
    # More than the guaranteed number counts as a share, and no share is left.
    with pytest.raises(Overloaded):
        await pending.admit(QUIET.organization_id, 1, waits=False)
    with pytest.raises(Overloaded):
        await pending.admit(NOISY.organization_id, 1_001, waits=False)
    # A stream's batch within the guaranteed number does not wait for others.
    async with asyncio.timeout(60):
        stream = await pending.admit(NOISY.organization_id, 1_000, waits=True)
    for room in [*floods, *quiet, stream]:
        room.give_up()
    assert pending.total == 0


async def test_large_batch_gets_room_although_others_fill_each_gap_with_small_ones() -> None:
    pending, order = PendingEvents(100, 100), list[str]()
    held = [await pending.admit(number, 30, waits=False) for number in (11, 12, 13)]

    async def stream(name: str, organization_id: int, events: int) -> None:
        room = await pending.admit(organization_id, events, waits=True)
        order.append(name)
        held.append(room)

    large = asyncio.create_task(stream("large", QUIET.organization_id, 60))
    await settled()
    small = [asyncio.create_task(stream(f"small {number}", number, 10)) for number in range(21, 41)]
    await settled()
    assert order == [], "10 are free, but they would be filled again and again"
    with pytest.raises(Overloaded):
        await pending.admit(NOISY.organization_id, 5, waits=False)
    held.pop(0).give_up()
    await settled()
    assert order == []
    held.pop(0).give_up()
    await settled()
    assert order[0] == "large"
    async with asyncio.timeout(60):
        while not all(task.done() for task in (large, *small)):
            held.pop(0).give_up()
            await settled()
    for room in held:
        room.give_up()
    assert pending.total == 0


async def test_guaranteed_events_do_not_wait_for_a_large_batch() -> None:
    pending = PendingEvents(100, 100, beside=5)
    held = await pending.admit(NOISY.organization_id, 50, waits=False)
    large = asyncio.create_task(pending.admit(3, 60, waits=True))
    await settled()
    quiet = await pending.admit(QUIET.organization_id, 5, waits=False)
    assert not large.done()
    held.give_up()
    async with asyncio.timeout(30):
        (await large).give_up()
    quiet.give_up()
    assert pending.total == 0


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 70), st.booleans()), max_size=50))
@settings(max_examples=80, deadline=None)
def test_every_stream_gets_room_whatever_the_order_and_the_sizes(batches: list[tuple[int, int, bool]]) -> None:
    async def run() -> None:
        pending, held, order = PendingEvents(60, 50, beside=3), list[Room](), list[int]()

        async def stream(number: int, organization_id: int, events: int) -> None:
            room = await pending.admit(organization_id, events, waits=True)
            order.append(number)
            held.append(room)

        tasks = []
        for number, (organization_id, events, is_cancelled) in enumerate(batches):
            tasks.append(asyncio.create_task(stream(number, organization_id, events)))
            await asyncio.sleep(0)
            if is_cancelled:
                tasks[number // 2].cancel()
        await settled()
        while not all(task.done() for task in tasks):
            assert held, "something waits although nothing is pending"
            held.pop(0).give_up()
            await settled()
        for room in held:
            room.give_up()
        assert pending.total == 0
        assert {number for number, task in enumerate(tasks) if not task.cancelled()} == set(order)
        for organization_id in range(1, 7):
            mine = [number for number in order if batches[number][0] == organization_id]
            assert mine == sorted(mine)

    asyncio.run(run())
