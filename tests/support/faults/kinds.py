"""The kinds of faults. Each has a random target and a random length, and ends before the next one begins."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.faults.proxy import Proxy
from tests.support.faults.stage import Stage

LONGEST = 6.0  # seconds that a pause, a stall or a full disk lasts; longer than an idle transaction may be
LONGEST_SLOWNESS = 2.0  # seconds that connections are delayed, and that clocks go on after a step
LONGEST_DELAY = 0.1  # seconds that each piece of data waits
LONGEST_STEP = 3_600.0  # seconds by which the clock is stepped, either way

Afterwards = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Injected:
    """A fault that is over. since: the time of the event loop from which its recovery counts.

    afterwards: what has to be done before the next fault, and is no part of the recovery.
    """

    since: float
    afterwards: Afterwards | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of fault. needs_disk: it needs a disk that can be filled."""

    name: str
    inject: Callable[[Stage], Awaitable[Injected]]
    needs_disk: bool = False


def _now() -> float:
    return asyncio.get_running_loop().time()


def _duration(stage: Stage) -> float:
    return stage.randomness.uniform(0.2, LONGEST)


async def _worker_killed(stage: Stage) -> Injected:
    """Its parent starts it again by itself."""
    os.kill(stage.randomness.choice(stage.servers["workers"].workers()), signal.SIGKILL)
    return Injected(_now())


async def _server_killed(stage: Stage) -> Injected:
    since = _now()
    server = stage.servers["single"]
    await server.killed()
    await server.start()
    return Injected(since)


async def _notifier_killed(stage: Stage) -> Injected:
    since = _now()
    notifier = stage.randomness.choice(stage.notifiers)
    await notifier.killed()
    await notifier.start()
    return Injected(since)


async def _backend_killed(stage: Stage) -> Injected:
    """PostgreSQL then ends all other sessions, and recovers."""
    backend = stage.database.random_backend(stage.randomness)
    if backend is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)
    return Injected(_now())


async def _sessions_ended(stage: Stage) -> Injected:
    await stage.database.primary.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tidemark'"
    )
    return Injected(_now())


async def _database_killed(stage: Stage) -> Injected:
    since = _now()
    how = stage.randomness.choice((signal.SIGKILL, signal.SIGQUIT, signal.SIGINT))
    await stage.database.primary.end(how)
    await stage.database.primary.start()
    return Injected(since)


@asynccontextmanager
async def _stopped(processes: Iterable[int]) -> AsyncIterator[None]:
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


async def _server_paused(stage: Stage) -> Injected:
    processes = [stage.servers["single"].pid, *stage.servers["workers"].workers()]
    async with _stopped([stage.randomness.choice(processes)]):
        await asyncio.sleep(_duration(stage))
    return Injected(_now())


async def _notifier_paused(stage: Stage) -> Injected:
    async with _stopped([stage.randomness.choice(stage.notifiers).pid]):
        await asyncio.sleep(_duration(stage))
    return Injected(_now())


async def _database_paused(stage: Stage) -> Injected:
    async with _stopped(stage.database.primary.processes()):
        await asyncio.sleep(_duration(stage))
    return Injected(_now())


async def _connection_paused(stage: Stage) -> Injected:
    """One session of the database stands still, perhaps with locks."""
    backend = stage.database.random_backend(stage.randomness)
    async with _stopped([] if backend is None else [backend]):
        await asyncio.sleep(_duration(stage))
    return Injected(_now())


def _cut(proxies: Callable[[Stage], Sequence[Proxy]]) -> Callable[[Stage], Awaitable[Injected]]:
    async def cut(stage: Stage) -> Injected:
        proxy = stage.randomness.choice(proxies(stage))
        for _ in range(stage.randomness.randint(1, 5)):
            proxy.cut()
            await asyncio.sleep(stage.randomness.uniform(0, 0.2))
        return Injected(_now())

    return cut


def _stalled(proxies: Callable[[Stage], Sequence[Proxy]]) -> Callable[[Stage], Awaitable[Injected]]:
    async def stalled(stage: Stage) -> Injected:
        proxy = stage.randomness.choice(proxies(stage))
        proxy.stall()
        try:
            await asyncio.sleep(_duration(stage))
            if stage.randomness.random() < 0.5:
                proxy.cut()  # what had waited is lost
        finally:
            proxy.flow()
        return Injected(_now())

    return stalled


def _delayed(proxies: Callable[[Stage], Sequence[Proxy]]) -> Callable[[Stage], Awaitable[Injected]]:
    async def delayed(stage: Stage) -> Injected:
        proxy = stage.randomness.choice(proxies(stage))
        proxy.delay = stage.randomness.uniform(0.005, LONGEST_DELAY)
        try:
            await asyncio.sleep(stage.randomness.uniform(0.2, LONGEST_SLOWNESS))
        finally:
            proxy.flow()
        return Injected(_now())

    return delayed


def _to_database(stage: Stage) -> Sequence[Proxy]:
    return [stage.database.proxies[stage.database.primary]]


def _to_servers(stage: Stage) -> Sequence[Proxy]:
    return stage.through


async def _failed_over(stage: Stage) -> Injected:
    since = _now()
    await stage.database.fail_over()
    return Injected(since, stage.database.begin_replication)


async def _disk_full(stage: Stage) -> Injected:
    primary = stage.database.primary
    primary.disk.fill()
    try:
        await asyncio.sleep(_duration(stage))
    finally:
        primary.disk.free()
    since = _now()
    # Without room for its log PostgreSQL ends itself. Whether it does depends on what it wrote meanwhile.
    await primary.start()
    return Injected(since)


async def _clock_stepped(stage: Stage) -> Injected:
    since = _now()
    stage.clock.step(stage.randomness.uniform(-LONGEST_STEP, LONGEST_STEP))
    await asyncio.sleep(stage.randomness.uniform(0.2, LONGEST_SLOWNESS))
    return Injected(since)


KINDS = (
    Kind("server worker killed", _worker_killed),
    Kind("server killed and started", _server_killed),
    Kind("notifier killed and started", _notifier_killed),
    Kind("session of PostgreSQL killed", _backend_killed),
    Kind("all sessions ended", _sessions_ended),
    Kind("PostgreSQL killed and started", _database_killed),
    Kind("failover to the standby", _failed_over),
    Kind("server paused", _server_paused),
    Kind("notifier paused", _notifier_paused),
    Kind("PostgreSQL paused", _database_paused),
    Kind("one session paused", _connection_paused),
    Kind("connections to PostgreSQL cut", _cut(_to_database)),
    Kind("connections to PostgreSQL stalled", _stalled(_to_database)),
    Kind("connections to PostgreSQL delayed", _delayed(_to_database)),
    Kind("connections of callers cut", _cut(_to_servers)),
    Kind("connections of callers stalled", _stalled(_to_servers)),
    Kind("connections of callers delayed", _delayed(_to_servers)),
    Kind("disk of PostgreSQL full", _disk_full, needs_disk=True),
    Kind("clock of all processes stepped", _clock_stepped),
)
