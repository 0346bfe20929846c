"""The life of a notifier process: it listens, works, and drains after a signal to stop."""

import asyncio
import logging
import random
import socket
from collections.abc import Callable

from notifier.attempts import Attempter
from notifier.metrics import Metrics
from notifier.monitoring import NotifierMonitoring
from notifier.readiness import followed
from notifier.sending import Sender, Timeouts
from notifier.upkeep import first_days, upkeep
from notifier.worker import POLL_INTERVAL, Worker
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.master_keys import master_keys
from runtime.monitoring.addresses import addresses
from runtime.signals import on_stop
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres.channels import DUE_CHANNEL, OUTBOX_CHANNEL
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.listening import listen
from store.postgres.lock_watch import LockWatch
from store.postgres.probe import DEFAULT_INTERVALS, ProbeIntervals
from webhooks.secret_box import box_of
from webhooks.url_policy import UrlPolicy

LISTEN_INTERVAL = 1.0  # seconds before it listens again after a connection that ended without an error

logger = logging.getLogger(__name__)


async def run(
    configuration: Configuration,
    database: Database,
    clock: Clock,
    on_start: Callable[[], None] = lambda: None,
    *,
    monitoring_socket: socket.socket | None = None,
) -> None:
    """Runs a notifier until a signal of runtime.signals, then drains; a second signal ends it immediately.

    The database has been migrated. The caller closes it. on_start: called when a signal drains it; before that, one
    would kill the process. monitoring_socket: see `run_until`. Raises CannotMonitor.
    """
    stop = asyncio.Event()
    notifier = asyncio.create_task(
        run_until(stop, configuration, database, clock, monitoring_socket=monitoring_socket), name="notifier"
    )

    def on_signal() -> None:
        if stop.is_set():
            notifier.cancel()
        stop.set()

    unfollow = on_stop(on_signal)
    try:
        on_start()
        await notifier
    except asyncio.CancelledError:
        logger.warning(
            "stopped immediately; deliveries in flight are left to their leases", extra={"action": LogAction.STOPPED}
        )
    finally:
        unfollow()


async def run_until(
    stop: asyncio.Event,
    configuration: Configuration,
    database: Database,
    clock: Clock,
    *,
    poll_interval: float = POLL_INTERVAL,
    probe_intervals: ProbeIntervals = DEFAULT_INTERVALS,
    on_poll: Callable[[], None] = lambda: None,
    monitoring_socket: socket.socket | None = None,
) -> None:
    """Runs a notifier until `stop` is set and what was in flight then has ended or been given back.

    poll_interval, on_poll: see `Worker`. probe_intervals: see `Probe`. monitoring_socket: a socket that listens for
    monitoring, beside the configured address. Raises CannotMonitor.
    """
    policy = UrlPolicy(configuration.webhook_allow_http, configuration.webhook_allow_networks)
    timeouts = Timeouts.of(configuration.webhook_timeout)
    metrics = Metrics()
    async with Sender(policy, timeouts, clock) as sender:
        box = box_of(master_keys(configuration))
        worker = Worker(
            database,
            Attempter(sender, clock, box, metrics, random.Random()),
            metrics,
            concurrency=configuration.notifier_concurrency,
            lease=timeouts.lease,
            poll_interval=poll_interval,
            on_poll=on_poll,
        )
        lock_watch = LockWatch(database)
        monitoring = NotifierMonitoring(database, clock, metrics, worker, lock_watch)
        shown_at = addresses(configuration.notifier_listen or configuration.metrics_listen, monitoring_socket)
        async with (
            followed(database.url, probe_intervals) as readiness,
            monitoring.shown(shown_at, readiness) as port,
        ):
            await _work(stop, configuration, database, worker, lock_watch, port)
    logger.info("the notifier has stopped", extra={"action": LogAction.STOPPED})


async def _work(
    stop: asyncio.Event,
    configuration: Configuration,
    database: Database,
    worker: Worker,
    lock_watch: LockWatch,
    port: int | None,
) -> None:
    """Runs the worker until `stop`, with the background tasks beside it. port: of the monitoring."""
    await first_days(database)
    beside = (_listener(database, worker), lock_watch, upkeep(database, configuration.delivery_retention))
    for task in beside:
        task.start()
    logger.info("the notifier runs", extra={"action": LogAction.START, "monitoring_port": port})
    try:
        await worker.run(stop, configuration.drain_timeout)
    finally:
        await asyncio.gather(*(task.stop() for task in beside))


def _listener(database: Database, worker: Worker) -> BackgroundTask:
    """The task that wakes the worker when work is committed. Without it the worker finds the work by its polls."""
    backoff = Backoff()

    async def listens() -> None:
        async for heard in listen(database.url, OUTBOX_CHANNEL, DUE_CHANNEL):
            channel = None if heard is None else heard[0]
            if channel != DUE_CHANNEL:
                worker.outbox_changed()
            if channel != OUTBOX_CHANNEL:
                worker.deliveries_due()
            backoff.reset()  # the step fails in the end, however long the connection lasts

    failures = FailureLog(
        logger,
        "the notifier cannot listen",
        LogAction.LISTEN_LOST,
        (DatabaseUnavailable,),
        "polling only: %s",
        LogAction.LISTEN_LOST,
    )
    return BackgroundTask(listens, failures, name="notifier listener", interval=LISTEN_INTERVAL, backoff=backoff)
