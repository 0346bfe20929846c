"""The kinds of faults of a run on a cluster."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import psycopg

from tests.support.faults import kinds
from tests.support.faults.cluster import Cluster, FaultyNode
from tests.support.faults.kinds import Injected, Kind, cut, delayed, duration, now, stalled, stopped
from tests.support.faults.proxy import Proxy
from tests.support.faults.stage import Stage
from tests.support.postgres.worker_node import customers_by_node, move_shard
from tests.support.processes.traffic import CUSTOMERS

MOVES = 5  # tries to move a shard, which can meet a lock that waits for the move

_Stage = Stage[Cluster]


def _node(stage: _Stage) -> FaultyNode:
    return stage.randomness.choice(stage.database.nodes)


async def _restarted(stage: _Stage, node: FaultyNode) -> Injected:
    await node.server.crash()
    try:
        await asyncio.sleep(stage.randomness.uniform(0, 3))
    finally:
        since = now()
        await node.server.start()
    return Injected(since)


async def _worker_killed(stage: _Stage) -> Injected:
    return await _restarted(stage, stage.randomness.choice(stage.database.nodes[1:]))


async def _coordinator_killed(stage: _Stage) -> Injected:
    return await _restarted(stage, stage.database.nodes[0])


async def _sessions_ended(stage: _Stage) -> Injected:
    await asyncio.to_thread(_node(stage).end_sessions)
    return Injected(now())


async def _session_ended(stage: _Stage) -> Injected:
    """A few sessions of a node end, one after the other."""
    node = _node(stage)
    for _ in range(stage.randomness.randint(1, 10)):
        if backends := await asyncio.to_thread(node.backends):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stage.randomness.choice(backends), signal.SIGTERM)
        await asyncio.sleep(stage.randomness.uniform(0, 0.3))
    return Injected(now())


async def _session_killed(stage: _Stage) -> Injected:
    """The node then ends all other sessions, and recovers."""
    if backends := await asyncio.to_thread(_node(stage).backends):
        with contextlib.suppress(ProcessLookupError):
            os.kill(stage.randomness.choice(backends), signal.SIGKILL)
    return Injected(now())


async def _session_paused(stage: _Stage) -> Injected:
    """One session of a node stands still, perhaps with locks."""
    backends = await asyncio.to_thread(_node(stage).backends)
    async with stopped(stage.randomness.sample(backends, min(1, len(backends)))):
        await asyncio.sleep(duration(stage))
    return Injected(now())


async def _node_paused(stage: _Stage) -> Injected:
    async with stopped(_node(stage).server.processes()):
        await asyncio.sleep(duration(stage))
    return Injected(now())


async def _shards_moved(stage: _Stage) -> Injected:
    """Some shards move to the other worker, beside the load."""
    url = stage.database.own_url
    for _ in range(stage.randomness.randint(1, 3)):
        customer_id = stage.randomness.choice(CUSTOMERS)
        await _moved(stage, url, customer_id)
    return Injected(now())


async def _moved(stage: _Stage, url: str, customer_id: str) -> None:
    for left in reversed(range(MOVES)):
        [source] = customers_by_node(url, [customer_id])
        target = stage.randomness.choice([one.node for one in stage.database.nodes[1:] if one.node != source])
        try:
            await asyncio.to_thread(move_shard, url, customer_id, target)
        except psycopg.Error:
            if not left:
                raise
        else:
            return


def _to_nodes(stage: _Stage) -> Sequence[Proxy]:
    return [one.proxy for one in stage.database.nodes]


KINDS: tuple[Kind[Cluster], ...] = (
    kinds.SERVER_WORKER_KILLED,
    kinds.SERVER_KILLED,
    kinds.NOTIFIER_KILLED,
    Kind("worker of the cluster killed and started", _worker_killed),
    Kind("coordinator killed and started", _coordinator_killed),
    Kind("session of a node killed", _session_killed),
    Kind("sessions of a node ended, one by one", _session_ended),
    Kind("all sessions of a node ended", _sessions_ended),
    Kind("one session of a node paused", _session_paused),
    Kind("node paused", _node_paused),
    Kind("shards moved", _shards_moved),
    kinds.SERVER_PAUSED,
    kinds.NOTIFIER_PAUSED,
    Kind("connections to a node cut", cut(_to_nodes)),
    Kind("connections to a node stalled", stalled(_to_nodes)),
    Kind("connections to a node delayed", delayed(_to_nodes)),
    *kinds.OF_CALLERS,
    kinds.CLOCK_STEPPED,
)
