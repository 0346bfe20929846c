"""Whole notifiers side by side, stopped, killed, paused, and with the database away."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import make_url

from notifier.process import run_until
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT
from store.postgres.database import Database
from tests.support.notifier.house import LOOPBACK, OFTEN, House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver, hang, running_receiver, status
from tests.support.server.sharing import own_database
from tests.support.waiting import until_said, within
from webhooks.deliveries import AttemptOutcome, DeliveryStatus

pytestmark = own_database


async def test_two_notifiers_share_the_work_and_send_nothing_twice(house: House, receiver: Receiver) -> None:
    for number in range(8):
        await house.endpoint(receiver.url.replace("/hook", f"/{number}"))
    async with running_notifier(house), running_notifier(house):
        ids = [await house.notify(5) for _ in range(5)]
        await house.settled(DeliveryStatus.DELIVERED, 200)
    expected = [notification_id for batch in ids for notification_id in batch]
    for number in range(8):
        assert sorted(receiver.ids(f"/{number}")) == expected
    assert len({arrival.peer for arrival in receiver.arrivals}) > 1


async def test_the_share_of_an_endpoint_holds_over_two_notifiers(house: House, receiver: Receiver) -> None:
    released = asyncio.Event()
    receiver.always_answer(hang(released))
    await house.endpoint(receiver.url)
    async with (
        running_notifier(house, poll_interval=OFTEN) as polls,
        running_notifier(house, poll_interval=OFTEN) as others,
    ):
        await house.notify(20)
        await receiver.arrived(DEFAULT_MAX_IN_FLIGHT)
        await house.outbox_emptied()
        await polls.one_more()
        await others.one_more()
        assert sum((await house.in_flight()).values()) == DEFAULT_MAX_IN_FLIGHT
        assert len(receiver.arrivals) == DEFAULT_MAX_IN_FLIGHT
        released.set()
        await house.settled(DeliveryStatus.DELIVERED, 20)
    assert receiver.most_open == DEFAULT_MAX_IN_FLIGHT
    assert len(receiver.arrivals) == 20


async def test_an_endpoint_that_hangs_delays_no_other(house: House, receiver: Receiver) -> None:
    released = asyncio.Event()
    healthy = [
        (await house.endpoint(receiver.url.replace("/hook", f"/{number}"))).endpoint.endpoint_id
        for number in range(5)
    ]
    async with running_receiver() as hanging:
        hanging.always_answer(hang(released))
        await house.endpoint(hanging.url)
        # Fewer requests at a time than the hanging endpoint has rows.
        async with running_notifier(house, configuration(NOTIFIER_CONCURRENCY="8")):
            await house.notify(30)
            done = await house.settled(DeliveryStatus.DELIVERED, 150)
            assert Counter(item.endpoint_id for item in done) == dict.fromkeys(healthy, 30)
            assert len(hanging.arrivals) == DEFAULT_MAX_IN_FLIGHT
            released.set()
            await house.settled(DeliveryStatus.DELIVERED, 180)


async def test_attempts_in_flight_end_before_the_notifier_stops(house: House, receiver: Receiver) -> None:
    released = asyncio.Event()
    receiver.always_answer(hang(released))
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        await house.notify(6)
        await house.outbox_emptied()
        await receiver.arrived(4)
        asyncio.get_running_loop().call_later(0.3, released.set)
    statuses = Counter(item.status for item in await house.deliveries())
    assert statuses == {DeliveryStatus.DELIVERED: 4, DeliveryStatus.PENDING: 2}
    assert set((await house.in_flight()).values()) == {0}


async def test_an_attempt_that_outlasts_the_drain_is_given_back(house: House, receiver: Receiver) -> None:
    receiver.always_answer(hang(asyncio.Event()))
    await house.endpoint(receiver.url)
    async with running_notifier(house, configuration(DRAIN_TIMEOUT_SECONDS="2")):
        await house.notify()
        await receiver.arrived(1)
    [delivery] = await house.deliveries()
    assert (delivery.status, delivery.attempt_count) == (DeliveryStatus.PENDING, 0)
    assert delivery.next_attempt_time is not None
    assert delivery.next_attempt_time - delivery.create_time < timedelta(seconds=30)
    assert set((await house.in_flight()).values()) == {0}
    receiver.always_answer(status(204))
    async with running_notifier(house):
        await house.settled(DeliveryStatus.DELIVERED, 1)
    assert len(set(receiver.ids())) == 1


async def test_connections_that_the_database_drops_lose_nothing(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        ids = []
        for _ in range(5):
            ids += await house.notify(4)
            await terminate_others(house)
        await house.settled(DeliveryStatus.DELIVERED, 20)
    assert set(receiver.ids()) == set(ids)


async def test_while_the_database_is_away_results_wait_and_then_work_goes_on(
    house: House, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    released = asyncio.Event()
    receiver.answer(hang(released))
    await house.endpoint(receiver.url)
    async with running_notifier(house, poll_interval=OFTEN):
        await house.notify()
        await receiver.arrived(1)
        async with database_away(house):
            released.set()
            await logged(caplog, "database.lost", 1)
            await logged(caplog, "record.delayed", 3)
        [delivery] = await house.settled(DeliveryStatus.DELIVERED, 1)
        assert delivery.attempt_count == 1
        await house.notify()
        await house.settled(DeliveryStatus.DELIVERED, 2)
    assert len(receiver.arrivals) == 2
    assert set((await house.in_flight()).values()) == {0}


async def test_a_notifier_that_starts_without_a_database_waits_for_it(
    house: House, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    await house.endpoint(receiver.url)
    await house.notify()
    stop = asyncio.Event()
    database = Database(house.database.url, pool_size=4)
    async with database_away(house):
        notifier = asyncio.create_task(run_until(stop, configuration(), database, house.clock))
        await logged(caplog, "database.lost", 1)
        assert not notifier.done()
    await house.settled(DeliveryStatus.DELIVERED, 1)
    stop.set()
    await notifier
    await database.close()


async def test_an_answer_that_cannot_be_stored_holds_back_no_other(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing that comes over HTTP does this, see test_what_is_stored_is_always_text; so the cleaning is taken out.
    monkeypatch.setattr("notifier.sending.printable", lambda data: data.decode())
    released = asyncio.Event()
    receiver.answer(hang(released), hang(released), status(500, "\0"), hang(released))
    await house.endpoint(receiver.url)
    async with running_notifier(house):
        await house.notify(4)
        await receiver.arrived(4)
        released.set()
        done = await house.settled(DeliveryStatus.DELIVERED, 3)
        [left] = await house.settled(DeliveryStatus.PENDING, 1)
        assert left.attempt_count == 0
        await house.expire_leases()
        await house.settled(DeliveryStatus.DELIVERED, 4)
    assert len(done) == 3


async def test_a_notifier_killed_between_the_send_and_the_record_sends_again_under_the_same_id(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    receiver.always_answer(hang(asyncio.Event()))
    async with standalone(house) as killed:
        [notification_id] = await house.notify()
        await receiver.arrived(1)
        killed.kill()
        await killed.wait()
    receiver.always_answer(status(204))
    await house.expire_leases()
    async with running_notifier(house):
        [delivery] = await house.settled(DeliveryStatus.DELIVERED, 1)
    assert receiver.ids() == [notification_id, notification_id]
    assert delivery.attempt_count == 1
    assert set((await house.in_flight()).values()) == {0}


async def test_notifiers_killed_at_random_times_lose_no_delivery(house: House, receiver: Receiver) -> None:
    for number in range(3):
        await house.endpoint(receiver.url.replace("/hook", f"/{number}"))
    ids: list[str] = []
    for pause in (0.0, 0.02, 0.07):
        async with standalone(house) as killed:
            for _ in range(10):
                ids += await house.notify(2)
            await receiver.arrived(len(receiver.arrivals) + 1)
            await asyncio.sleep(pause)
            killed.kill()
            await killed.wait()
        await house.expire_leases()
    async with running_notifier(house):
        await house.settled(DeliveryStatus.DELIVERED, 180)
    for number in range(3):
        assert set(receiver.ids(f"/{number}")) == set(ids)
    assert set((await house.in_flight()).values()) == {0}


async def test_a_notifier_paused_beyond_its_lease_does_not_undo_its_successors_work(
    house: House, receiver: Receiver
) -> None:
    await house.endpoint(receiver.url)
    released = asyncio.Event()
    receiver.answer(hang(released))
    async with standalone(house) as paused:
        await house.notify()
        await receiver.arrived(1)
        paused.send_signal(signal.SIGSTOP)
        await house.expire_leases()
        receiver.answer(status(500))
        async with running_notifier(house):
            [delivery] = await house.attempted(1)
        assert delivery.status is DeliveryStatus.PENDING
        released.set()
        paused.send_signal(signal.SIGCONT)
        await until_said(paused.stderr, b"record.fenced")
    [unchanged] = await house.deliveries()
    assert unchanged.status is DeliveryStatus.PENDING
    assert [a.outcome for a in await house.attempts(unchanged.delivery_id)] == [AttemptOutcome.SERVER_ERROR]


async def test_sigterm_drains_and_ends_well(house: House, receiver: Receiver) -> None:
    released = asyncio.Event()
    receiver.always_answer(hang(released))
    await house.endpoint(receiver.url)
    async with standalone(house) as process:
        await house.notify()
        await receiver.arrived(1)
        process.terminate()
        released.set()
        async with within("the end of a notifier that drains"):
            assert await process.wait() == 0
    await house.settled(DeliveryStatus.DELIVERED, 1)


async def test_a_second_signal_ends_the_notifier_immediately(house: House, receiver: Receiver) -> None:
    receiver.always_answer(hang(asyncio.Event()))
    await house.endpoint(receiver.url)
    async with standalone(house) as process:
        await house.notify()
        await receiver.arrived(1)
        process.terminate()
        await until_said(process.stderr, b"drain")
        process.terminate()
        async with within("the end of a notifier that was asked twice"):
            assert await process.wait() == 0
    [delivery] = await house.deliveries()
    assert delivery.next_attempt_time is None, "the lease should still stand"


@asynccontextmanager
async def standalone(house: House) -> AsyncIterator[asyncio.subprocess.Process]:
    """A notifier in a process of its own; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.notifier.standalone",
        house.database.url,
        env={**os.environ, **LOOPBACK},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def logged(caplog: pytest.LogCaptureFixture, action: str, number: int) -> None:
    """Waits until the log has so many lines of that action."""
    async with within(f"{number} lines of the log with {action}"):
        while True:
            if sum(getattr(record, "action", "") == action for record in caplog.records) >= number:
                return
            await asyncio.sleep(0.01)


async def terminate_others(house: House) -> None:
    """Cuts every connection to the database."""
    url = make_url(house.database.url)
    async with await administrator(house) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [url.database]
        )
    # The pool of the test has lost its connections too; its next transaction would report that.
    await house.database.close()


@asynccontextmanager
async def database_away(house: House) -> AsyncIterator[None]:
    """Refuses every connection to the database inside the block."""
    name = make_url(house.database.url).database
    async with await administrator(house) as connection:
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            await terminate_others(house)
            yield
        finally:
            await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


async def administrator(house: House) -> psycopg.AsyncConnection[tuple[object, ...]]:
    url = make_url(house.database.url).set(database="postgres").render_as_string(hide_password=False)
    return await psycopg.AsyncConnection.connect(url, autocommit=True)
