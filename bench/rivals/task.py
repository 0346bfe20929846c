"""The task of a rival's script: JSON on the first line of standard input; the second line starts it."""

import asyncio
import json
import sys
from dataclasses import dataclass

READY = "ready"


@dataclass(frozen=True)
class Task:
    """Deliveries to make. jobs: pairs of a URL and the id of a notification."""

    database_url: str
    secret: str
    body: str
    concurrency: int
    jobs: list[tuple[str, str]]


def read_task() -> Task:
    """Reads the task from standard input."""
    found = json.loads(sys.stdin.readline())
    return Task(**{**found, "jobs": [(url, one) for url, one in found["jobs"]]})


async def wait_for_start() -> None:
    """Reports on standard output that the jobs are queued, and waits for the line that starts them."""
    print(READY, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
