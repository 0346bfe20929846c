"""How a rival's script is told what to do, and when: arguments as JSON, then a line on standard input."""

import asyncio
import json
import sys
from dataclasses import dataclass

READY = "ready"


@dataclass(frozen=True)
class Task:
    """Deliveries to make: jobs are pairs of a URL and a notification's id."""

    database_url: str
    secret: str
    body: str
    concurrency: int
    jobs: list[tuple[str, str]]


def task() -> Task:
    """The task, from the first line of standard input."""
    found = json.loads(sys.stdin.readline())
    return Task(**{**found, "jobs": [(url, one) for url, one in found["jobs"]]})


async def go() -> None:
    """Says that the jobs are queued, and waits for the word."""
    print(READY, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
