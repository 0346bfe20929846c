"""Measures one peer: its rates, how late it knows of a threshold, and what `kill -9` loses."""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.peers import loads
from bench.peers.definitions import Definition
from bench.peers.loads import Loads
from bench.peers.stores import Store
from bench.peers.task import ACKNOWLEDGED, Event, Step, Task, write_events
from bench.support import load
from bench.support.environment import Unavailable
from bench.support.load import Kind
from bench.support.stack import PostgreSQL

ROUND_SECONDS = 2.0  # of a peer that does not count all events of the round in that time
WARM_UP_SECONDS = 0.7
STEP_TIMEOUT = 60.0  # seconds of one step
KILL_AFTER = 1.0  # seconds after the first acknowledgement, or earlier, when half of the events are acknowledged
RESENT = 16_000  # unacknowledged events that are sent after the crash: no peer has more in flight
MAX_LINE = 2**24  # bytes of a script's output

_ROOT = Path(__file__).resolve().parents[2]
_RECURRING = load.STEP
_THRESHOLDS = [factor * number * load.OUT_OF_REACH for number in range(1, load.ALERTS) for factor in (1, 2, 3)]


@dataclass(frozen=True)
class Loss:
    """The result of `kill -9`.

    acknowledged: events before it. lost, twice: events that were counted too seldom or too often, after those without
    an acknowledgement were sent again.
    """

    acknowledged: int
    lost: int
    twice: int


@dataclass(frozen=True)
class Measurement:
    """The results of one peer. rates: events a second by kind of traffic. delays: seconds."""

    rates: dict[str, float]
    delays: list[float]
    missed: int  # thresholds that the program did not know of in the end
    loss: Loss


async def measure(
    postgresql: PostgreSQL, name: str, peer: Definition, events: Loads, report: Callable[[str], None]
) -> Measurement:
    """Measures a peer, on stores of its own. Raises Unavailable."""
    interpreter = await peer.environment.python() if peer.environment else sys.executable
    runner = _Runner(peer, interpreter, peer.stored)
    rates: dict[str, float] = {}
    paced: dict[str, Any] = {}
    for kind in loads.KINDS:
        async with peer.make(postgresql, f"bench_{name}_{kind.name}") as store:
            found = await runner.run(store, _steps(events, kind, pace=kind is loads.KINDS[0]))
        rates[kind.name] = found[2]["events"] / found[2]["seconds"]
        paced |= found[3] if len(found) > 3 else {}
        report(f"{peer.title}: {kind.name} {rates[kind.name]:,.0f} events/s")
    if not paced["delays"]:
        raise Unavailable("it did not find the thresholds that were reached")
    async with peer.make(postgresql, f"bench_{name}_killed") as store:
        loss = await _killed(_Runner(peer, interpreter), store, events.killed, postgresql.folder)
    report(
        f"{peer.title}: kill -9 after {loss.acknowledged:,} events lost {loss.lost:,}, {loss.twice:,} counted twice"
    )
    return Measurement(rates, paced["delays"], paced["missed"], loss)


def _steps(events: Loads, kind: Kind, *, pace: bool) -> list[Step]:
    steps = [
        Step("send", events.first[kind.name]),
        Step("rate", events.warm[kind.name], WARM_UP_SECONDS),
        Step("rate", events.measured[kind.name], ROUND_SECONDS),
    ]
    return [*steps, Step("pace", events.paced)] if pace else steps


class _Script:
    """A running script."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._output = process.stdout
        self._errors = asyncio.create_task(process.stderr.read())

    async def line(self) -> str:
        """The next line of its output; empty after its end. Raises Unavailable."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return (await self._output.readline()).decode().rstrip("\n")
        except TimeoutError:
            raise Unavailable(f"a step took longer than {STEP_TIMEOUT:g} s") from None

    async def kill(self) -> None:
        """Kills it with SIGKILL, unless it has ended."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def failure(self) -> Unavailable:
        """An error with the end of what it printed as its errors."""
        await self.kill()
        return Unavailable((await self._errors).decode(errors="replace").strip()[-300:] or "its script ended early")


class _Runner:
    """Runs the scripts of one peer. stored: events that are in its store before."""

    def __init__(self, peer: Definition, interpreter: str, stored: int = 0) -> None:
        self._command = [interpreter, "-m", f"bench.peers.{peer.module}"]
        self._stored = stored

    @asynccontextmanager
    async def started(self, store: Store, steps: Sequence[Step]) -> AsyncIterator[_Script]:
        """A script that does these steps; killed at the end of the block."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT)},
            limit=MAX_LINE,
        )
        assert process.stdin is not None
        script = _Script(process)
        try:
            task = Task(store.address, store.database_url, _THRESHOLDS, _RECURRING, self._stored, steps)
            process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
            yield script
        finally:
            await script.kill()

    async def run(self, store: Store, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """The results of the steps. Raises Unavailable."""
        results: list[dict[str, Any]] = []
        async with self.started(store, steps) as script:
            while len(results) < len(steps):
                if not (line := await script.line()):
                    raise await script.failure()
                results.append(json.loads(line))
        return results


async def _killed(runner: _Runner, store: Store, events: Sequence[Event], folder: Path) -> Loss:
    """Kills the script and its store in the middle of the load; then sends what was not acknowledged once more."""
    everything, rest = folder / "all.events", folder / "rest.events"
    write_events(everything, events)
    acknowledged: list[tuple[int, int]] = []

    async def note(script: _Script) -> bool:
        line = await script.line()
        if line.startswith(ACKNOWLEDGED):
            acknowledged.append((int(line.split()[1]), int(line.split()[2])))
        return bool(line)

    async with runner.started(store, [Step("acknowledge", str(everything))]) as script:
        if not await note(script):
            raise await script.failure()
        end = time.monotonic() + KILL_AFTER
        while time.monotonic() < end and sum(number for _, number in acknowledged) < len(events) // 2:
            if not await note(script):
                raise await script.failure()
        await store.kill()
        await script.kill()
        while await note(script):
            pass
    await store.start_again()
    known = {number for first, length in acknowledged for number in range(first, first + length)}
    resent = [number for number in range(max(known) + RESENT) if number not in known and number < len(events)][
        :RESENT
    ]
    write_events(rest, [events[number] for number in resent])
    results = await runner.run(store, [Step("send", str(rest)), Step("totals")])
    sent = Counter(events[number].customer_id for number in [*known, *resent])
    lost, twice = differences(sent, results[1]["totals"])
    return Loss(len(known), lost, twice)


def differences(sent: Mapping[str, int], counted: Mapping[str, int]) -> tuple[int, int]:
    """How many events of all customers are missing in what was counted, and how many are too many."""
    customers = sent.keys() | counted.keys()
    more = [counted.get(customer, 0) - sent.get(customer, 0) for customer in customers]
    return sum(-one for one in more if one < 0), sum(one for one in more if one > 0)
