"""What time brings, to the end: a test's own timers, and those of the servers that it calls."""

import asyncio

from engine.timers import Timers
from runtime.clock import Clock
from store.balances import wallets
from store.postgres.database import Database
from tests.support.usage.caller import DEADLINE


async def work_off(timers: Timers, database: Database, clock: Clock) -> None:
    """Does what is due. A sweep leaves alone what a server's timers are at in that moment: this waits for it."""
    async with asyncio.timeout(DEADLINE):
        while True:
            await timers.sweep()
            async with database.transaction() as connection:
                if not await wallets.due_timers(connection, clock.now(), 1):
                    return
            await asyncio.sleep(0.005)
