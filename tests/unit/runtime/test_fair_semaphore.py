"""The fair semaphore: an organization has no more seats than it leaves free; waiting organizations take turns."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runtime.fair_semaphore import FairSemaphore, may_take
from runtime.turns import of_loop
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


async def test_organizations_that_were_charged_least_get_the_next_seats() -> None:
    gate, order = FairSemaphore(1), list[int]()
    gate.charge(NOISY, 1_000)
    gate.charge(SECOND, 10)
    gate.charge(THIRD, 5)
    holder = Work(gate, 4)
    await settled()
    waiting = [Work(gate, who, order.append) for who in (NOISY, NOISY, SECOND, THIRD, THIRD)]
    await settled()
    for one in waiting:
        one.may_leave.set()
    await holder.leave()
    async with asyncio.timeout(30):
        await asyncio.gather(*(one.task for one in waiting))
    assert order == [THIRD, THIRD, SECOND, NOISY, NOISY]


async def test_organization_that_was_idle_has_saved_nothing_up() -> None:
    gate, order = FairSemaphore(1), list[int]()
    for _ in range(50):
        async with gate.seat(NOISY):
            gate.charge(NOISY, 10)

    async def work(organization_id: int) -> None:
        async with gate.seat(organization_id):
            order.append(organization_id)
            gate.charge(organization_id, 10)
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(*(work(who) for who in (NOISY, NOISY, NOISY, SECOND, SECOND, SECOND)))
    assert order[:3] in ([NOISY, SECOND, SECOND], [NOISY, SECOND, NOISY]), "500 units of the past are not paid back"
    assert order.count(NOISY) == order.count(SECOND) == 3


async def test_heavy_organizations_leave_reserved_seats_to_the_others() -> None:
    gate = FairSemaphore(4, reserved=1)
    heavy = list(range(100, 105))
    for one in heavy:
        of_loop().used_up(one)
    working = [Work(gate, one) for one in heavy]
    await settled()
    assert [one.seated.is_set() for one in working] == [True, True, True, False, False]
    light = Work(gate, SECOND)
    await settled()
    assert light.seated.is_set()
    # The seat of the other one does not become one for heavy organizations, but theirs do.
    await light.leave()
    await settled()
    assert not working[3].seated.is_set()
    await working[0].leave()
    await settled()
    assert working[3].seated.is_set()
    for work in working:
        work.may_leave.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*(work.task for work in working))
    assert gate.free == 4
    async with contextlib.AsyncExitStack() as seats:
        for one in range(4):
            await seats.enter_async_context(gate.seat(one))


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 6), st.floats(0, 100), st.integers(0, 3), st.booleans()), max_size=60),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_every_wait_for_a_seat_ends_and_no_seat_is_lost_whatever_the_charges(
    seats: int, calls: list[tuple[int, float, int, bool]]
) -> None:
    async def run() -> None:
        gate = FairSemaphore(seats, reserved=1 if seats > 1 else 0)
        of_loop().used_up(1)
        of_loop().used_up(2)

        async def call(organization_id: int, cost: float, passes: int) -> None:
            async with gate.seat(organization_id):
                gate.charge(organization_id, cost)
                for _ in range(passes):
                    await asyncio.sleep(0)

        tasks = []
        for who, cost, passes, is_cancelled in calls:
            tasks.append(asyncio.create_task(call(who, cost, passes)))
            for _ in range(passes):
                await asyncio.sleep(0)
            if is_cancelled:
                tasks[len(tasks) // 2].cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.free == seats

    asyncio.run(run())


async def test_an_organization_gets_a_seat_although_others_always_wait() -> None:
    gate, served, is_over = FairSemaphore(1), asyncio.Event(), False
    gate.charge(NOISY, 100)
    async with gate.seat(NOISY):  # the time is now where its charges have brought it
        gate.charge(NOISY, 100)

    async def endless(organization_id: int) -> None:
        while not is_over:
            async with gate.seat(organization_id):
                gate.charge(organization_id, 1)
                await asyncio.sleep(0)

    async def wait() -> None:
        async with gate.seat(NOISY):
            served.set()

    others = [asyncio.create_task(endless(number)) for number in range(10, 15)]
    await settled()
    waiting = asyncio.create_task(wait())
    async with asyncio.timeout(60):
        await served.wait()
    is_over = True
    await asyncio.gather(waiting, *others)


async def test_heavy_organization_gets_half_of_its_part_while_a_light_one_has_a_call_in_progress() -> None:
    gate = FairSemaphore(8, reserved=1)
    of_loop().used_up(NOISY)
    of_loop().begin_call(71)
    noisy = [Work(gate, NOISY) for _ in range(10)]
    await settled()
    assert sum(one.seated.is_set() for one in noisy) == 3
    of_loop().end_call(71)
    of_loop().used_up(71)  # as if its call had ended long ago
    await noisy[0].leave()
    await settled()
    assert sum(one.seated.is_set() for one in noisy[1:]) == 4
    for one in noisy:
        one.may_leave.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*(one.task for one in noisy))
    assert gate.free == 8


async def test_heavy_organizations_together_get_half_of_their_seats_beside_a_light_one() -> None:
    gate = FairSemaphore(7, reserved=1)
    heavy = list(range(100, 106))
    for one in heavy:
        of_loop().used_up(one)
    of_loop().begin_call(72)
    working = [Work(gate, one) for one in heavy]
    await settled()
    assert [one.seated.is_set() for one in working] == [True, True, True, False, False, False]
    of_loop().end_call(72)
    of_loop().used_up(72)  # as if its call had ended long ago
    await working[0].leave()
    await settled()
    assert all(one.seated.is_set() for one in working[1:])
    for work in working:
        work.may_leave.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*(work.task for work in working))
    assert gate.free == 7


async def test_renewed_seat_lets_another_organization_have_its_turn() -> None:
    gate, order = FairSemaphore(1), list[str]()

    async def long_work() -> None:
        async with gate.seat(NOISY) as seat:
            for number in range(3):
                order.append(f"part {number}")
                await settled()
                await seat.renew()
            order.append("end")

    long = asyncio.create_task(long_work())
    await asyncio.sleep(0)
    other = Work(gate, SECOND, lambda _: order.append("other"))
    other.may_leave.set()
    async with asyncio.timeout(30):
        await asyncio.gather(long, other.task)
    assert order == ["part 0", "other", "part 1", "part 2", "end"]
    assert gate.free == 1


async def test_seat_is_returned_once_when_its_task_is_cancelled_while_it_renews_it() -> None:
    gate, may_renew = FairSemaphore(1), asyncio.Event()

    async def renewing() -> None:
        async with gate.seat(NOISY) as seat:
            await may_renew.wait()
            await seat.renew()

    task = asyncio.create_task(renewing())
    await asyncio.sleep(0)
    other = Work(gate, SECOND)
    await settled()
    may_renew.set()
    await settled()
    assert other.seated.is_set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gate.free == 0
    await other.leave()
    assert gate.free == 1
