"""The kinds of faults of a run on a PostgreSQL server with a standby."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from tests.support.faults import kinds
from tests.support.faults.kinds import Injected, Kind, cut, delayed, duration, now, stalled, stopped
from tests.support.faults.proxy import Proxy
from tests.support.faults.replicated import Replicated
from tests.support.faults.stage import Stage

_Stage = Stage[Replicated]


async def _backend_killed(stage: _Stage) -> Injected:
    """PostgreSQL then ends all other sessions, and recovers."""
    backend = stage.database.random_backend(stage.randomness)
    if backend is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)
    return Injected(now())


async def _sessions_ended(stage: _Stage) -> Injected:
    await stage.database.primary.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tidemark'"
    )
    return Injected(now())


async def _database_killed(stage: _Stage) -> Injected:
    since = now()
    how = stage.randomness.choice((signal.SIGKILL, signal.SIGQUIT, signal.SIGINT))
    await stage.database.primary.end(how)
    await stage.database.primary.start()
    return Injected(since)


async def _database_paused(stage: _Stage) -> Injected:
    async with stopped(stage.database.primary.processes()):
        await asyncio.sleep(duration(stage))
    return Injected(now())


async def _connection_paused(stage: _Stage) -> Injected:
    """One session of the database stands still, perhaps with locks."""
    backend = stage.database.random_backend(stage.randomness)
    async with stopped([] if backend is None else [backend]):
        await asyncio.sleep(duration(stage))
    return Injected(now())


def _to_database(stage: _Stage) -> Sequence[Proxy]:
    return [stage.database.proxies[stage.database.primary]]


async def _failed_over(stage: _Stage) -> Injected:
    since = now()
    await stage.database.fail_over()
    return Injected(since, stage.database.begin_replication)


async def _disk_full(stage: _Stage) -> Injected:
    primary = stage.database.primary
    primary.disk.fill()
    try:
        await asyncio.sleep(duration(stage))
    finally:
        primary.disk.free()
    since = now()
    # Without room for its log PostgreSQL ends itself. Whether it does depends on what it wrote meanwhile.
    await primary.start()
    return Injected(since)


KINDS: tuple[Kind[Replicated], ...] = (
    kinds.SERVER_WORKER_KILLED,
    kinds.SERVER_KILLED,
    kinds.NOTIFIER_KILLED,
    Kind("session of PostgreSQL killed", _backend_killed),
    Kind("all sessions ended", _sessions_ended),
    Kind("PostgreSQL killed and started", _database_killed),
    Kind("failover to the standby", _failed_over),
    kinds.SERVER_PAUSED,
    kinds.NOTIFIER_PAUSED,
    Kind("PostgreSQL paused", _database_paused),
    Kind("one session paused", _connection_paused),
    Kind("connections to PostgreSQL cut", cut(_to_database)),
    Kind("connections to PostgreSQL stalled", stalled(_to_database)),
    Kind("connections to PostgreSQL delayed", delayed(_to_database)),
    *kinds.OF_CALLERS,
    Kind("disk of PostgreSQL full", _disk_full, lambda database: database.primary.disk.can_be_filled),
    kinds.CLOCK_STEPPED,
)
