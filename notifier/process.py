"""The life of a notifier process: it listens, works, and drains when it is asked to stop."""

import asyncio
import logging
import signal

from notifier.backoff import Backoff
from notifier.sending import Sender, Timeouts
from notifier.worker import Worker
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.targets import TargetPolicy
from store import outbox
from store.database import Database, DatabaseUnavailable

logger = logging.getLogger(__name__)


async def run(configuration: Configuration, database: Database, clock: Clock) -> None:
    """Runs a notifier until SIGTERM or SIGINT, then drains in time; a second signal ends it at once.

    The database has been migrated. The caller closes it.
    """
    stop = asyncio.Event()
    notifier = asyncio.create_task(run_until(stop, configuration, database, clock), name="notifier")

    def on_signal() -> None:
        if stop.is_set():
            notifier.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await notifier
    except asyncio.CancelledError:
        logger.warning("stopped at once; deliveries in flight are left to their leases", extra={"action": "stop"})
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def run_until(stop: asyncio.Event, configuration: Configuration, database: Database, clock: Clock) -> None:
    """Runs a notifier until `stop` is set and what was in flight then has ended or been given back."""
    policy = TargetPolicy(configuration.webhook_allow_http, configuration.webhook_allow_networks)
    timeouts = Timeouts.of(configuration.webhook_timeout)
    async with Sender(policy, timeouts, clock) as sender:
        worker = Worker(database, sender, clock, concurrency=configuration.notifier_concurrency, lease=timeouts.lease)
        listening = asyncio.create_task(_listen(database, worker), name="notifier listener")
        logger.info("the notifier runs", extra={"action": "start"})
        try:
            await worker.run(stop, configuration.drain_timeout)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    logger.info("the notifier has stopped", extra={"action": "stop"})


async def _listen(database: Database, worker: Worker) -> None:
    """Wakes the worker when outbox rows are committed; while it cannot, the worker's polling finds them."""
    backoff = Backoff()
    while True:
        try:
            async for _ in outbox.notifications(database.url):
                worker.outbox_changed()
                backoff.reset()
        except DatabaseUnavailable as error:
            logger.warning("polling only: %s", error, extra={"action": "listen.lost"})
        await backoff.sleep()
