"""Shutdown, drain and the count of calls."""

import asyncio

from server.calls.lifecycle import CallsInFlight, Drain, Shutdown


async def test_a_second_stop_request_forces_the_stop() -> None:
    shutdown = Shutdown()
    shutdown.request()
    assert (shutdown.requested.is_set(), shutdown.forced.is_set()) == (True, False)
    shutdown.request()
    assert shutdown.forced.is_set()


async def test_a_forced_stop_ends_a_sleep() -> None:
    shutdown = Shutdown()
    sleeping = asyncio.create_task(shutdown.sleep(3600))
    await asyncio.sleep(0)
    assert not sleeping.done()
    shutdown.request()
    shutdown.request()
    await sleeping


async def test_a_sleep_ends_by_itself() -> None:
    shutdown = Shutdown()
    await shutdown.sleep(0.001)
    assert not shutdown.forced.is_set()


async def test_wait_until_idle_ends_after_the_last_call() -> None:
    in_flight = CallsInFlight()
    await in_flight.idle()
    in_flight.enter()
    in_flight.enter()
    waiting = asyncio.create_task(in_flight.idle())
    in_flight.leave()
    await asyncio.sleep(0)
    assert (in_flight.count, waiting.done()) == (1, False)
    in_flight.leave()
    await waiting
    assert in_flight.count == 0


async def test_a_drain_begins_once_and_stays_on() -> None:
    drain = Drain()
    assert not drain.is_on
    drain.begin()
    drain.begin()
    assert drain.is_on
