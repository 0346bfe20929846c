"""The deliveries as jobs of procrastinate; a script."""

import procrastinate  # type: ignore[import-not-found]  # only in the environment of bench/rivals/environment.py
import uvloop

from bench.rivals.posting import Poster
from bench.rivals.task import read_task, wait_for_start

CONNECTIONS = 12  # as many as the notifier's pool has


async def main() -> None:
    """Queues the jobs, waits for the word, and works until none is left."""
    task = read_task()
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=task.database_url, max_size=CONNECTIONS)
    )
    poster = Poster(task.secret)

    async def deliver(url: str, one: str, body: str) -> None:
        await poster.post(url, one, body)

    job = app.task(name="deliver", queue="webhooks")(deliver)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await job.batch_defer_async(*({"url": url, "one": one, "body": task.body} for url, one in task.jobs))
        await wait_for_start()
        await app.run_worker_async(concurrency=task.concurrency, wait=False, install_signal_handlers=False)
    await poster.close()


if __name__ == "__main__":
    uvloop.run(main())
