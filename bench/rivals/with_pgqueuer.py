"""The deliveries as jobs of PgQueuer over asyncpg, the driver it recommends; a script."""

import json
from datetime import timedelta
from typing import Any

import asyncpg  # type: ignore[import-not-found]  # only in the environment of bench/rivals/environment.py
import uvloop
from pgqueuer import PgQueuer, Queries  # type: ignore[import-not-found]  # as above
from pgqueuer.db import AsyncpgPoolDriver  # type: ignore[import-not-found]  # as above
from pgqueuer.types import QueueExecutionMode  # type: ignore[import-not-found]  # as above

from bench.rivals.posting import Poster
from bench.rivals.task import read_task, wait_for_start

CONNECTIONS = 12  # as many as the notifier's pool has


async def main() -> None:
    """Queues the jobs, waits for the word, and works until none is left."""
    task = read_task()
    poster = Poster(task.secret)

    async def deliver(job: Any) -> None:
        await poster.post(*json.loads(job.payload))

    async with asyncpg.create_pool(task.database_url, min_size=2, max_size=CONNECTIONS) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        payloads = [json.dumps([url, one, task.body]).encode() for url, one in task.jobs]
        await queries.enqueue(["deliver"] * len(payloads), payloads, [0] * len(payloads))
        queue = PgQueuer.from_asyncpg_pool(pool)
        queue.entrypoint("deliver")(deliver)
        await wait_for_start()
        await queue.run(
            dequeue_timeout=timedelta(seconds=1),
            # It never holds more than twice a batch.
            batch_size=task.concurrency // 2,
            max_concurrent_tasks=task.concurrency,
            mode=QueueExecutionMode.drain,
        )
    await poster.close()


if __name__ == "__main__":
    uvloop.run(main())
