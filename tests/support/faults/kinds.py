"""Kinds of faults, and those that are the same whatever the database is: of processes, callers and the clock.

Each fault has a random target and a random length, and ends before the next one begins.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic

from tests.support.faults.clock import LONGEST_STEP
from tests.support.faults.proxy import Proxy
from tests.support.faults.stage import D, Stage

LONGEST = 6.0  # seconds that a pause, a stall or a full disk lasts; longer than an idle transaction may be
LONGEST_SLOWNESS = 2.0  # seconds that connections are delayed, and that clocks go on after a step
LONGEST_DELAY = 0.1  # seconds that each piece of data waits

Afterwards = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Injected:
    """A fault that is over. since: the time of the event loop from which its recovery counts.

    afterwards: what has to be done before the next fault, and is no part of the recovery.
    """

    since: float
    afterwards: Afterwards | None = None


@dataclass(frozen=True)
class Kind(Generic[D]):
    """A kind of fault. is_possible: whether the database, on this machine, can have it."""

    name: str
    inject: Callable[[Stage[D]], Awaitable[Injected]]
    is_possible: Callable[[D], bool] = lambda _: True


def now() -> float:
    """The time of the event loop."""
    return asyncio.get_running_loop().time()


def duration(stage: Stage[Any]) -> float:
    """Of a pause or a stall, in seconds."""
    return stage.randomness.uniform(0.2, LONGEST)


@asynccontextmanager
async def stopped(processes: Iterable[int]) -> AsyncIterator[None]:
    """Lets processes stand still inside the block."""
    processes = list(processes)
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def cut(proxies: Callable[[Stage[D]], Sequence[Proxy]]) -> Callable[[Stage[D]], Awaitable[Injected]]:
    """Breaks off the connections of one of the proxies, perhaps several times."""

    async def inject(stage: Stage[D]) -> Injected:
        proxy = stage.randomness.choice(proxies(stage))
        for _ in range(stage.randomness.randint(1, 5)):
            proxy.cut()
            await asyncio.sleep(stage.randomness.uniform(0, 0.2))
        return Injected(now())

    return inject


def stalled(proxies: Callable[[Stage[D]], Sequence[Proxy]]) -> Callable[[Stage[D]], Awaitable[Injected]]:
    """Lets nothing pass through one of the proxies for a time."""

    async def inject(stage: Stage[D]) -> Injected:
        proxy = stage.randomness.choice(proxies(stage))
        proxy.stall()
        try:
            await asyncio.sleep(duration(stage))
            if stage.randomness.random() < 0.5:
                proxy.cut()  # what had waited is lost
        finally:
            proxy.flow()
        return Injected(now())

    return inject


def delayed(proxies: Callable[[Stage[D]], Sequence[Proxy]]) -> Callable[[Stage[D]], Awaitable[Injected]]:
    """Delays each piece of data that passes through one of the proxies."""

    async def inject(stage: Stage[D]) -> Injected:
        proxy = stage.randomness.choice(proxies(stage))
        proxy.delay = stage.randomness.uniform(0.005, LONGEST_DELAY)
        try:
            await asyncio.sleep(stage.randomness.uniform(0.2, LONGEST_SLOWNESS))
        finally:
            proxy.flow()
        return Injected(now())

    return inject


async def _worker_killed(stage: Stage[Any]) -> Injected:
    """Its parent starts it again by itself."""
    os.kill(stage.randomness.choice(stage.servers["workers"].workers()), signal.SIGKILL)
    return Injected(now())


async def _server_killed(stage: Stage[Any]) -> Injected:
    since = now()
    server = stage.servers["single"]
    await server.killed()
    await server.start()
    return Injected(since)


async def _notifier_killed(stage: Stage[Any]) -> Injected:
    since = now()
    notifier = stage.randomness.choice(stage.notifiers)
    await notifier.killed()
    await notifier.start()
    return Injected(since)


async def _server_paused(stage: Stage[Any]) -> Injected:
    processes = [stage.servers["single"].pid, *stage.servers["workers"].workers()]
    async with stopped([stage.randomness.choice(processes)]):
        await asyncio.sleep(duration(stage))
    return Injected(now())


async def _notifier_paused(stage: Stage[Any]) -> Injected:
    async with stopped([stage.randomness.choice(stage.notifiers).pid]):
        await asyncio.sleep(duration(stage))
    return Injected(now())


def _to_servers(stage: Stage[Any]) -> Sequence[Proxy]:
    return stage.through


async def _clock_stepped(stage: Stage[Any]) -> Injected:
    since = now()
    stage.clock.step(stage.randomness.uniform(-LONGEST_STEP, LONGEST_STEP))
    await asyncio.sleep(stage.randomness.uniform(0.2, LONGEST_SLOWNESS))
    return Injected(since)


SERVER_WORKER_KILLED = Kind[Any]("server worker killed", _worker_killed)
SERVER_KILLED = Kind[Any]("server killed and started", _server_killed)
NOTIFIER_KILLED = Kind[Any]("notifier killed and started", _notifier_killed)
SERVER_PAUSED = Kind[Any]("server paused", _server_paused)
NOTIFIER_PAUSED = Kind[Any]("notifier paused", _notifier_paused)
OF_CALLERS = (
    Kind[Any]("connections of callers cut", cut(_to_servers)),
    Kind[Any]("connections of callers stalled", stalled(_to_servers)),
    Kind[Any]("connections of callers delayed", delayed(_to_servers)),
)
CLOCK_STEPPED = Kind[Any]("clock of all processes stepped", _clock_stepped)
