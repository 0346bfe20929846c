"""The upkeep of the notifier: makes the partitions of coming days, and drops those that are too old."""

import logging
from datetime import timedelta

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.deliveries import days as delivery_days
from store.postgres.database import Database, DatabaseUnavailable

INTERVAL = 3_600.0  # seconds between two rounds; days are made for several days ahead
RETRY_INTERVAL = 60.0  # seconds at most before the next try of a round that failed

_DELAYED = "upkeep waits for the database: %s"

logger = logging.getLogger(__name__)


async def first_days(database: Database) -> None:
    """Makes the partitions before the notifier works: to make one while results are written into it delays them.

    After a failure `upkeep` tries again.
    """
    try:
        await _make_ahead(database)
    except Exception as error:
        logger.warning(
            "the days of deliveries are not there yet: %s", error, extra={"action": LogAction.UPKEEP_DELAYED}
        )


async def _make_ahead(database: Database) -> None:
    for parent in delivery_days.PARENTS:
        async with database.transaction() as connection:
            await delivery_days.make_ahead(connection, [parent])


def upkeep(database: Database, keep: timedelta) -> BackgroundTask:
    """The task that makes and drops partitions; finished deliveries are kept for `keep`."""

    async def makes_and_drops() -> float | None:
        try:
            await _make_ahead(database)
            await _drop_old(database, keep)
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            # Most likely the lock timeout of a drop. Every transaction that needs the table waits behind a drop, so
            # the next try comes later.
            logger.warning(_DELAYED, error, extra={"action": LogAction.UPKEEP_DELAYED})
            return RETRY_INTERVAL
        return None

    return BackgroundTask(
        makes_and_drops,
        FailureLog(
            logger,
            "the upkeep failed; it is tried again",
            LogAction.UPKEEP_FAILED,
            (DatabaseUnavailable,),
            _DELAYED,
            LogAction.UPKEEP_DELAYED,
        ),
        name="notifier upkeep",
        interval=INTERVAL,
        backoff=Backoff(longest=RETRY_INTERVAL),  # no delivery depends on it immediately
    )


async def _drop_old(database: Database, keep: timedelta) -> None:
    dropped = []
    for parent in delivery_days.PARENTS:
        async with database.transaction() as connection:
            dropped += await delivery_days.drop_old(connection, keep, [parent])
    if dropped:
        logger.info("dropped %s", ", ".join(dropped), extra={"action": LogAction.UPKEEP_DROPPED})
