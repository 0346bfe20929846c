"""The server process, from the first listener to the last call."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from engine.ingest.pending import BESIDE, PendingEvents
from engine.ingest.pipeline import Pipeline
from engine.jobs import RedeliveryJobs
from engine.timers import Timers
from engine.upkeep import Upkeep
from engine.visits.visits import Visits
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.fair_semaphore import FairSemaphore
from server.alerts.watching.feeds import Feeds
from server.calls.connections import divide
from server.calls.identity import Identity, is_loopback
from server.calls.lifecycle import Drain, InFlight, Shutdown
from server.calls.shares import CallShares
from server.health import Health
from server.interceptors.access_log import AccessLog
from server.interceptors.before_key import BeforeKey
from server.interceptors.deadline import Deadline
from server.interceptors.errors import Errors
from server.interceptors.identity import Identify
from server.interceptors.in_flight import CountInFlight
from server.interceptors.request_id import RequestId
from server.interceptors.shares import Shares
from server.reflection import add_reflection
from server.services import Dependencies, register
from store.postgres.database import Database
from store.postgres.lock_watch import LockWatch
from store.postgres.probe import Probe

KEEPALIVE_TIME = 60_000  # milliseconds without traffic after which a connection is pinged
KEEPALIVE_TIMEOUT = 20_000  # milliseconds that the answer may take
MIN_PING_INTERVAL = 30_000  # milliseconds; clients that ping more often are sent away
MAX_CONNECTION_AGE = 30 * 60_000  # milliseconds; so that new replicas get their share of connections
# milliseconds that calls on an aged connection may still take; more than server.usage_service.MAX_STREAM_AGE, so
# that a usage stream ends by itself, with a word, and is never cut off by this
MAX_CONNECTION_AGE_GRACE = 40 * 60_000
MAX_CONNECTION_IDLE = 5 * 60_000  # milliseconds without a call after which a connection is closed
HANDSHAKE_TIMEOUT = 10_000  # milliseconds from a connection to its first settings
READ_AHEAD = 65_536  # bytes of a call that a connection takes before they are read
MAX_CONCURRENT_STREAMS = 1_024  # calls at the same time on one connection
LAST_GRACE = 0.5  # seconds for connections to close once no call is in flight

logger = logging.getLogger(__name__)


class CannotListen(Exception):
    """The address cannot be listened on."""


async def serve(
    configuration: Configuration,
    database: Database,
    clock: Clock,
    shutdown: Shutdown,
    on_listening: Callable[[str, int], None] = lambda host, port: None,
    add_services: Callable[[grpc.aio.Server, Dependencies], tuple[str, ...]] = register,
) -> None:
    """Serves until `shutdown` is requested, then drains; the caller closes the database afterwards.

    `on_listening` is called with the host and the port that was bound, once the server listens and has asked the
    database for a sign of life.
    `add_services` adds the services of the API and returns their names.
    Raises CannotListen and server.identity.UnsafeListen, and DatabaseUnavailable when the database does not
    answer at the start.
    """
    async with contextlib.AsyncExitStack() as stack:  # whatever was started is stopped, in reverse
        host = configuration.listen_host
        identity = Identity(database, clock, listens_to_loopback_only=is_loopback(host))
        await identity.start()

        upkeep = Upkeep(database, clock, configuration.retention, configuration.notification_retention)
        stack.push_async_callback(upkeep.stop)
        await upkeep.start()
        visits = Visits(database, clock, configuration.grace)
        stack.push_async_callback(visits.stop)
        visits.start()
        timers = Timers(database, clock)
        stack.push_async_callback(timers.stop)
        timers.start()
        redeliveries = RedeliveryJobs(database, clock)
        stack.push_async_callback(redeliveries.stop)
        redeliveries.start()
        feeds = Feeds(
            database,
            max_watchers=configuration.max_watchers,
            organization_watchers=configuration.organization_watchers,
        )
        stack.push_async_callback(feeds.stop)
        feeds.start()
        seats = divide(configuration.pool_size, configuration.ingest_writers)
        pipeline = Pipeline(
            database,
            clock,
            configuration.grace,
            writers=configuration.ingest_writers,
            pending=PendingEvents(
                configuration.max_pending_events,
                configuration.organization_pending_events,
                beside=configuration.max_pending_events // BESIDE,
            ),
            gate=FairSemaphore(seats.ingest),
        )
        stack.push_async_callback(pipeline.drain)

        drain = Drain()
        in_flight = InFlight()
        shares = CallShares(
            FairSemaphore(seats.calls),
            most_of_one=configuration.organization_calls,
            streams_of_one=configuration.organization_streams,
        )
        deadline = Deadline(configuration.unary_deadline)
        server = grpc.aio.server(
            interceptors=(
                RequestId(),
                AccessLog(),
                CountInFlight(in_flight),
                BeforeKey(Identify(identity)),
                deadline,
                Shares(shares),
                Errors(configuration.max_message_bytes),
            ),
            options=_options(configuration),
        )
        services = add_services(
            server, Dependencies(configuration, database, clock, drain, pipeline, visits, redeliveries, feeds)
        )
        lock_watch = LockWatch(database)
        stack.push_async_callback(lock_watch.stop)
        lock_watch.start()
        health = Health(services, configuration.max_connections)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if configuration.reflection:
            add_reflection(server, (*services, "grpc.health.v1.Health"), deadline.infrastructure)

        port = _bind(server, host, configuration.listen_port)
        stack.push_async_callback(server.stop, 0)
        await server.start()
        logger.info(
            "listening on %s port %d", host, port, extra={"action": LogAction.LISTEN, "host": host, "port": port}
        )

        probe = Probe(database.url)
        stack.push_async_callback(probe.close)
        await health.probe(probe)
        following = health.following(probe)
        stack.push_async_callback(following.stop)
        following.start()

        aside = Database(database.url, pool_size=1)
        stack.push_async_callback(aside.close)
        revocations = identity.revocations(aside)
        stack.push_async_callback(revocations.stop)
        revocations.start()

        on_listening(host, port)
        await shutdown.requested.wait()

        # Balancers need a moment to notice; until then they send new calls, which are served.
        health.begin_drain()
        logger.info("stopping: NOT_SERVING", extra={"action": LogAction.NOT_SERVING})
        await shutdown.sleep(configuration.propagation_delay)

        drain.begin()
        logger.info("draining %d calls", in_flight.count, extra={"action": LogAction.DRAIN, "calls": in_flight.count})
        await _stop(server, in_flight, shutdown, configuration.drain_timeout)
    logger.info("stopped", extra={"action": LogAction.STOPPED})


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListen(
            f"cannot listen on {address}: another server runs there, or the address is not this machine's"
        ) from error


async def _stop(server: grpc.aio.Server, in_flight: InFlight, shutdown: Shutdown, timeout: float) -> None:
    """Lets calls end for up to `timeout` seconds, and cuts them off when they do not or when forced."""
    # stop(grace) closes the door at once, but lasts the whole grace while any stream is open, a stranger's health
    # watch too. So its grace is longer than anybody waits, and a second stop ends it once no call is left.
    closing = asyncio.create_task(server.stop(timeout + LAST_GRACE), name="stop")
    idle = asyncio.create_task(in_flight.idle(), name="idle")
    forced = asyncio.create_task(shutdown.forced.wait(), name="forced")
    await asyncio.wait({idle, forced}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if in_flight.count:
        logger.warning(
            "cutting off %d calls", in_flight.count, extra={"action": LogAction.CUT_OFF, "calls": in_flight.count}
        )
    await server.stop(0 if in_flight.count else LAST_GRACE)
    await closing
    await _cancel(idle)
    await _cancel(forced)


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _options(configuration: Configuration) -> list[tuple[str, int]]:
    return [
        # A little more than the limit, so that a message just above it is refused by us, with a reason. What is
        # larger gRPC refuses when it has read the length, and holds nothing of it.
        ("grpc.max_receive_message_length", configuration.max_message_bytes * 9 // 8 + 1024),
        # Windows that grow with the traffic would let callers send megabytes into calls that nothing reads. A
        # message that is being read opens the window to its own size.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", READ_AHEAD),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL),
        ("grpc.max_allowed_incoming_connections", configuration.max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT),
        ("grpc.max_connection_idle_ms", MAX_CONNECTION_IDLE),
        ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE),
        ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_AGE_GRACE),
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        # On, a second server would silently share the port and half of the calls.
        ("grpc.so_reuseport", 0),
    ]
