"""The upkeep of the notifier: makes the partitions of coming days, and drops those that are too old."""

import asyncio
import logging
from datetime import timedelta

from runtime.backoff import Backoff
from store.deliveries import days as delivery_days
from store.postgres.database import Database, DatabaseUnavailable

INTERVAL = 3_600.0  # seconds between two rounds; days are made for several days ahead

logger = logging.getLogger(__name__)


async def first_days(database: Database) -> None:
    """Makes the partitions before the notifier works: to make one while results are written into it delays them.

    After a failure `keep_days` tries again.
    """
    try:
        await _make_ahead(database)
    except Exception as error:
        logger.warning("the days of deliveries are not there yet: %s", error, extra={"action": "upkeep.delayed"})


async def _make_ahead(database: Database) -> None:
    for parent in delivery_days.PARENTS:
        async with database.transaction() as connection:
            await delivery_days.make_ahead(connection, [parent])


async def keep_days(database: Database, keep: timedelta) -> None:
    """Makes and drops partitions until it is cancelled; finished deliveries are kept for `keep`."""
    backoff = Backoff()
    while True:
        try:
            await _make_ahead(database)
            dropped = []
            for parent in delivery_days.PARENTS:
                async with database.transaction() as connection:
                    dropped += await delivery_days.drop_old(connection, keep, [parent])
            if dropped:
                logger.info("dropped %s", ", ".join(dropped), extra={"action": "upkeep.dropped"})
            backoff.reset()
            await asyncio.sleep(INTERVAL)
        except DatabaseUnavailable as error:
            logger.warning("upkeep waits for the database: %s", error, extra={"action": "upkeep.delayed"})
            if error.failure.contained:
                # Most likely the lock timeout of a drop. Every transaction that needs the table waits behind a drop,
                # so the next try comes later.
                await asyncio.sleep(INTERVAL / 60)
            else:
                await backoff.sleep()
        except Exception:
            # No delivery depends on this immediately.
            logger.exception("the upkeep failed; it is tried again", extra={"action": "upkeep.failed"})
            await asyncio.sleep(INTERVAL / 60)
