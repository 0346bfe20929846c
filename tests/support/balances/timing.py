"""Waiting for timers: those of a test itself, and those of the servers that it calls."""

import asyncio

from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from engine.timers import Timers
from runtime.clock import Clock
from store.balances import wallet_timers
from store.postgres.database import Database
from tests.support.usage.caller import DEADLINE
from tests.support.usage.service import GRACE


def timers_of(database: Database, clock: Clock) -> Timers:
    """Timers that share no cached rules with others, as those of another replica."""
    return Timers(database, clock, Transactions(database, clock, GRACE, RulesRegistry()))


async def work_off(timers: Timers, database: Database, clock: Clock) -> None:
    """Does all that is due, and waits for what the timers of a server have claimed."""
    async with asyncio.timeout(DEADLINE):
        while True:
            await timers.sweep()
            async with database.transaction() as connection:
                if not await wallet_timers.due_timers(connection, clock.now(), 1):
                    return
            await asyncio.sleep(0.005)
