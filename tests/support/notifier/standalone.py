"""A notifier as a process of its own, for tests that kill it: the database's URL is its argument."""

import asyncio
import os
import sys

from notifier.process import run
from runtime import logs
from runtime.clock import SystemClock
from runtime.configuration import load
from store.postgres.database import Database


async def main() -> None:
    configuration = load(os.environ)
    logs.configure(configuration.log_level, configuration.log_format)
    database = Database(sys.argv[1], pool_size=4)
    try:
        await run(configuration, database, SystemClock())
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(main())
