"""The fair semaphore: an organization has no more seats than it leaves free; waiting organizations take turns."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from runtime.fair_semaphore import FairSemaphore, may_take
from server.calls.pool_division import divide

NOISY, SECOND, THIRD = 1, 2, 3


class Work:
    """A task that takes a seat, and keeps it until `may_leave` is set."""

    def __init__(
        self, gate: FairSemaphore, organization_id: int, done: Callable[[int], None] = lambda _: None
    ) -> None:
        self.seated = asyncio.Event()
        self.may_leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(gate, organization_id, done))

    async def _run(self, gate: FairSemaphore, organization_id: int, done: Callable[[int], None]) -> None:
        async with gate.seat(organization_id):
            done(organization_id)
            self.seated.set()
            await self.may_leave.wait()

    async def leave(self) -> None:
        """Returns its seat."""
        self.may_leave.set()
        await self.task


async def settled() -> None:
    """Lets all ready tasks run."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("own", "free", "wanted", "may"),
    [
        (0, 1, 1, True),
        (0, 0, 1, False),
        (1, 1, 1, False),
        (1, 2, 1, True),
        (0, 40, 40, True),
        (40, 60, 20, True),
        (40, 60, 21, False),
        (0, 40, 41, False),
    ],
)
def test_organization_may_take_no_more_than_it_leaves_free(own: int, free: int, wanted: int, may: bool) -> None:
    assert may_take(own, free, wanted) is may


async def test_one_organization_never_has_more_seats_than_it_leaves_free() -> None:
    gate = FairSemaphore(6)
    noisy = [Work(gate, NOISY) for _ in range(60)]
    await settled()
    assert [one.seated.is_set() for one in noisy] == [True] * 3 + [False] * 57
    # Another organization gets a seat at once, and a third one too, for any number of waiting tasks.
    others = [Work(gate, SECOND), Work(gate, THIRD)]
    await settled()
    assert all(one.seated.is_set() for one in others)
    for one in [*noisy, *others]:
        one.may_leave.set()
    await asyncio.gather(*(one.task for one in [*noisy, *others]))
    assert gate.free == 6


async def test_waiting_organizations_get_seats_in_rotation_and_keep_their_own_order() -> None:
    gate, order = FairSemaphore(1), list[int]()
    first = Work(gate, NOISY)
    await settled()
    waiting = [Work(gate, who, order.append) for who in (NOISY, NOISY, NOISY, SECOND, SECOND, THIRD)]
    await settled()
    for one in waiting:
        one.may_leave.set()
    await first.leave()
    await asyncio.gather(*(one.task for one in waiting))
    assert order == [NOISY, SECOND, THIRD, NOISY, SECOND, NOISY]


async def test_seat_is_returned_after_cancellation_and_after_an_error() -> None:
    gate = FairSemaphore(2)
    holder, waiting = Work(gate, NOISY), Work(gate, NOISY)
    await settled()
    assert not waiting.seated.is_set()
    # Cancelled while it waits.
    waiting.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting.task
    # Cancelled at the same time as its seat is granted.
    late = Work(gate, NOISY)
    await settled()
    holder.may_leave.set()
    await asyncio.sleep(0)
    late.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await late.task
    await holder.task
    # Cancelled while it has its seat, and failed.
    seated = Work(gate, NOISY)
    await settled()
    seated.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await seated.task
    with pytest.raises(ZeroDivisionError):
        async with gate.seat(NOISY):
            raise ZeroDivisionError
    assert gate.free == 2
    async with asyncio.timeout(30), gate.seat(NOISY):
        assert gate.free == 1


@pytest.mark.parametrize("pool", range(4, 60))
@pytest.mark.parametrize("writers", [1, 2, 8, 32])
def test_pool_is_divided_so_that_each_part_has_a_connection(pool: int, writers: int) -> None:
    seats = divide(pool, writers)
    assert min(seats) >= 1
    assert pool - sum(seats) >= 1
