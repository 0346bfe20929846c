"""Runs a rival's script on a database of its own, and counts what arrives."""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.rivals import environment
from bench.rivals.task import READY, Task
from bench.support.fast_receiver import FastReceiver

RIVALS = ("procrastinate", "pgqueuer")
START_TIMEOUT = 30.0  # seconds to make the tables and queue the jobs
SECONDS = 20.0  # of one run; jobs that are left then are not counted

_ROOT = Path(__file__).resolve().parents[2]


async def rate(rival: str, task: Task, receiver: FastReceiver) -> float:
    """Deliveries a second, from the start of the worker to the last arrival, or for so many seconds at the most.

    Raises environment.Unavailable.
    """
    interpreter = await environment.ENVIRONMENT.python()
    process = await asyncio.create_subprocess_exec(
        interpreter,
        "-m",
        f"bench.rivals.with_{rival}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    printed = asyncio.create_task(process.stderr.read())
    try:
        process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        async with asyncio.timeout(START_TIMEOUT):
            ready = (await process.stdout.readline()).decode().strip()
        if ready != READY:
            raise environment.Unavailable(f"{rival}: {(await printed).decode(errors='replace')[-200:].strip()}")
        start = time.monotonic()
        process.stdin.write(b"go\n")
        try:
            arrivals = await receiver.arrived(len(task.jobs), SECONDS)
        except TimeoutError:
            arrivals = await receiver.take()
    except TimeoutError:
        raise environment.Unavailable(f"{rival} had not queued its jobs after {START_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        printed.cancel()
        await receiver.take()
    if not arrivals:
        raise environment.Unavailable(f"{rival} delivered nothing in {SECONDS:g} s")
    return len(arrivals) / (max(arrival.time for arrival in arrivals) - start)


def jobs(receiver: FastReceiver, endpoints: int, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Each notification to each endpoint, in the order of the notifications."""
    return [(f"{receiver.url}/{number}", one) for one in ids for number in range(endpoints)]
