"""What the script of each other gate does with its task. Only the standard library and uvloop."""

import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.peers.task import ACKNOWLEDGED

RESERVED, SETTLED = 10, 7  # of each pair
LIMIT = 10**15


@dataclass(frozen=True)
class GateTask:
    """What a script does: JSON on its standard input.

    store: the URL or the address of what the gate keeps its holds in. kind: `pairs` reserves and settles for so many
    seconds; `pace` reserves when it is due; `acknowledge` reserves, and prints what is acknowledged; `held` prints
    which of the reservations `ids` exist.
    """

    store: str
    kind: str
    name: str = ""
    customers: int = 1
    seconds: float = 0.0
    due: Sequence[float] = ()
    ids: Sequence[str] = ()


class Gate(ABC):
    """Something that admits usage. callers: how many calls are made at a time. together: decisions of one call."""

    callers = 16
    together = 1

    def __init__(self, store: str) -> None:
        self.store = store

    @abstractmethod
    async def open(self, customers: int) -> None:
        """Connects, and makes the tables or whatever it needs."""

    @abstractmethod
    async def reserve(self, caller: int, holds: Sequence[tuple[str, str]]) -> None:
        """Makes reservations, each of a customer and with an id, by a caller's connection."""

    @abstractmethod
    async def settle(self, caller: int, holds: Sequence[tuple[str, str]]) -> None:
        """Settles them."""

    @abstractmethod
    async def held(self, ids: Sequence[str]) -> list[str]:
        """Those of these reservations that exist."""


class Refused(Exception):
    """A reservation was not admitted, though it fits."""


def run(gate: Callable[[str], Gate]) -> None:
    """Does the task with a gate, and prints a line of JSON."""
    task = GateTask(**json.loads(sys.stdin.readline()))
    uvloop.run(_run(gate(task.store), task))


async def _run(gate: Gate, task: GateTask) -> None:
    await gate.open(task.customers)
    print(json.dumps(await _KINDS[task.kind](gate, task)), flush=True)


def _holds(gate: Gate, task: GateTask, call: int) -> list[tuple[str, str]]:
    first = call * gate.together
    return [
        (f"customer-{number % task.customers:06d}", f"{task.name}-{number:07d}")
        for number in range(first, first + gate.together)
    ]


async def _pairs(gate: Gate, task: GateTask) -> dict[str, Any]:
    done = 0
    started = time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal done
        call = number
        while time.perf_counter() - started < task.seconds:
            holds = _holds(gate, task, call)
            await gate.reserve(number, holds)
            await gate.settle(number, holds)
            done += len(holds)
            call += gate.callers

    await asyncio.gather(*map(caller, range(gate.callers)))
    return {"pairs": done, "seconds": time.perf_counter() - started}


async def _pace(gate: Gate, task: GateTask) -> dict[str, Any]:
    waiting = asyncio.Queue[tuple[int, float] | None]()
    took: list[float] = []
    start = time.perf_counter()

    async def caller(number: int) -> None:
        while (call := await waiting.get()) is not None:
            index, due = call
            hold = f"customer-{index % task.customers:06d}", f"{task.name}-{index:07d}"
            await gate.reserve(number, [hold])
            took.append(time.perf_counter() - start - due)

    async with asyncio.TaskGroup() as callers:
        for number in range(gate.callers):
            callers.create_task(caller(number))
        for one in enumerate(task.due):
            if (early := start + one[1] - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            waiting.put_nowait(one)
        for _ in range(gate.callers):
            waiting.put_nowait(None)
    return {"took": took}


async def _acknowledge(gate: Gate, task: GateTask) -> dict[str, Any]:
    async def caller(number: int) -> None:
        call = number
        while True:
            holds = _holds(gate, task, call)
            await gate.reserve(number, holds)
            print(ACKNOWLEDGED, *[reservation_id for _, reservation_id in holds], flush=True)
            call += gate.callers

    await asyncio.gather(*map(caller, range(gate.callers)))
    return {}


async def _held(gate: Gate, task: GateTask) -> dict[str, Any]:
    return {"held": await gate.held(task.ids)}


_KINDS = {"pairs": _pairs, "pace": _pace, "acknowledge": _acknowledge, "held": _held}
