"""The gates that a team would use instead: their rates, their latencies, and what `kill -9` loses of each."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.enforcement.calls import WARM_UP, due_times
from bench.enforcement.gate import GateTask
from bench.enforcement.requests import CUSTOMERS
from bench.enforcement.rows import ONE, PACED_SECONDS, RATE, SPREAD
from bench.peers import stores
from bench.peers.definitions import CLIENTS
from bench.peers.stores import Maker
from bench.peers.task import ACKNOWLEDGED
from bench.support.environment import Unavailable
from bench.support.figures import milliseconds
from bench.support.goals import Figure
from bench.support.stack import PostgreSQL

PAIR_SECONDS = 2.5
KILL_AFTER = 1.5  # seconds after the first acknowledgement
STEP_TIMEOUT = 30.0  # seconds of one task
MAX_LINE = 2**24  # bytes of a script's output

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Definition:
    """A gate. module: its script. make: of its store."""

    title: str
    module: str
    make: Maker


GATES: Mapping[str, Definition] = {
    "for update": Definition("SELECT … FOR UPDATE, PostgreSQL", "for_update_gate", stores.database),
    "redis always": Definition(
        "Redis script, appendfsync always",
        "redis_gate",
        stores.redis("--appendonly", "yes", "--appendfsync", "always"),
    ),
    "redis everysec": Definition(
        "Redis script, appendfsync everysec (not durable)",
        "redis_gate",
        stores.redis("--appendonly", "yes", "--appendfsync", "everysec"),
    ),
    "redis": Definition("Redis script, as installed (not durable)", "redis_gate", stores.redis()),
}


async def measure(postgresql: PostgreSQL, name: str) -> list[Figure]:
    """The figures of a gate, on stores of its own. Raises Unavailable."""
    gate = GATES[name]
    interpreter = await CLIENTS.python()
    command = [interpreter, "-m", f"bench.enforcement.{gate.module}"]
    database = f"bench_gate_{name.replace(' ', '_')}"
    figures = []
    async with gate.make(postgresql, database) as store:
        for title, customers in ((SPREAD, CUSTOMERS), (ONE, 1)):
            for number in range(2):  # the first warms up
                task = GateTask(
                    store.address,
                    "pairs",
                    f"pairs-{customers}-{number}",
                    customers,
                    seconds=PAIR_SECONDS if number else 0.5,
                )
                found = await _run(command, task)
            figures.append(Figure(name, f"reserve + settle, {title}", found["pairs"] / found["seconds"], "/s"))
        due = due_times("paced", RATE, PACED_SECONDS)
        found = await _run(command, GateTask(store.address, "pace", "paced", CUSTOMERS, due=due))
        took = found["took"][round(RATE * WARM_UP) :]
        for share in (0.5, 0.99):
            figures.append(Figure(name, f"reserve at {RATE}/s, p{share * 100:.0f}", milliseconds(took, share), "ms"))
        acknowledged = await _kill(command, store)
        kept = await _run(command, GateTask(store.address, "held", customers=CUSTOMERS, ids=acknowledged))
    details = {"acknowledged": len(acknowledged)}
    lost = len(acknowledged) - len(kept["held"])
    return [*figures, Figure(name, LOST.format(len(acknowledged)), lost, "", None, details)]


LOST = "reservations of {:,} acknowledged that kill -9 lost"


async def _kill(command: Sequence[str], store: stores.Store) -> list[str]:
    """Kills the store in the middle of the load; returns the acknowledged reservations."""
    acknowledged: list[str] = []
    async with _started(command, GateTask(store.address, "acknowledge", "killed", CUSTOMERS)) as process:
        assert process.stdout is not None

        async def read() -> None:
            assert process.stdout is not None
            async for line in process.stdout:
                kind, *ids = line.decode().split()
                if kind == ACKNOWLEDGED:
                    acknowledged.extend(ids)

        reading = asyncio.create_task(read())
        await asyncio.sleep(KILL_AFTER)
        await store.kill()
        process.kill()
        await reading
    await store.start_again()
    if not acknowledged:
        raise Unavailable("it acknowledged nothing before it was killed")
    return acknowledged


async def _run(command: Sequence[str], task: GateTask) -> dict[str, Any]:
    """The result of a task. Raises Unavailable."""
    async with _started(command, task) as process:
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                printed, errors = await process.communicate()
        except TimeoutError:
            raise Unavailable(f"a step took longer than {STEP_TIMEOUT:g} s") from None
    if process.returncode:
        raise Unavailable(errors.decode(errors="replace").strip()[-300:])
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


@asynccontextmanager
async def _started(command: Sequence[str], task: GateTask) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if task.kind != "acknowledge" else asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT)},
        limit=MAX_LINE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
