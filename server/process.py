"""The server process: builds its parts, starts them, serves, and stops them in reverse order."""

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping

import grpc
from grpc_health.v1 import health_pb2_grpc

from engine.ingest.nodes import Nodes, open_nodes
from engine.limits import DEFAULT_LIMITS, EngineLimits
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.fair_semaphore import FairSemaphore
from runtime.forwarding import Forwarding, forwarding
from runtime.monitoring.addresses import addresses
from runtime.monitoring.build import add_build_info
from runtime.monitoring.port import MonitoredProcess, monitoring_port
from runtime.monitoring.process import process_metrics
from runtime.tasks import BackgroundTask
from server import listener
from server.alerts.usage_requests import DECODER_PROBLEM, decodes_natively
from server.authentication.api_keys import Authenticator, is_loopback
from server.calls.lifecycle import CallsInFlight, Shutdown
from server.calls.pool_division import divide, reserved
from server.front import Backend, Front, ServingFront, admission
from server.health import HealthService
from server.interceptors.deadline import Deadline
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from server.monitoring import ServerMonitoring
from server.parts import Parts, build_parts, started
from server.reflection import add_reflection
from server.services import register
from server.tls import certificate_files
from server.tls_context import renewed_context
from store import migrate
from store.embedded.monitoring import embedded_metrics
from store.monitoring.ends_watch import EndsWatch
from store.monitoring.pools import add_gates, add_pool
from store.monitoring.watch import BacklogWatch
from store.postgres.database import Database
from store.postgres.lock_watch import LockWatch
from store.postgres.probe import Probe, ProbeIntervals
from store.usage.events import ROWS_PROBLEM

logger = logging.getLogger(__name__)


async def serve(
    configuration: Configuration,
    database: Database,
    clock: Clock,
    shutdown: Shutdown,
    on_listening: Callable[[str, int], None] = lambda host, port: None,
    add_services: Callable[[grpc.aio.Server, Parts], tuple[str, ...]] = register,
    *,
    engine_limits: EngineLimits = DEFAULT_LIMITS,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    shares_port: bool = False,
    monitoring_socket: socket.socket | None = None,
    front: Front | None = None,
) -> None:
    """Serves until `shutdown` is requested, then drains; the caller closes the database afterwards.

    on_listening: called with the host and the bound port, when the server listens and has probed the database.
    add_services: adds the services of the API to the server, and returns their names. engine_limits, server_limits:
    limits and intervals that have no setting; only tests pass others than the defaults. shares_port: see
    `listener.build_server`. monitoring_socket: a socket that listens for monitoring, beside the configured address.
    front: another protocol, such as HTTP, that is served while the server is. Raises BadCertificate, CannotListen,
    CannotListenFront, CannotMonitor, UnsafeListen, DatabaseUnavailable when the database does not answer at the
    start, and ListenerEnded when gRPC ends the server by itself.
    """
    host = configuration.listen_host
    certificate = certificate_files(configuration)
    async with contextlib.AsyncExitStack() as stack:
        monitoring, readiness = ServerMonitoring(), _Readiness()
        monitored_at = addresses(configuration.metrics_listen, monitoring_socket)
        shown = MonitoredProcess(monitoring.instruments.registry, lambda: readiness.is_ready)
        shown_at_port = await stack.enter_async_context(monitoring_port(monitored_at, shown))
        authenticator = await _authenticator(configuration, database, clock, server_limits.revocation_grace)
        seats = divide(configuration.pool_size, configuration.ingest_writers)
        calls_gate = FairSemaphore(seats.calls, reserved=reserved(seats.calls))
        ingest_gate = FairSemaphore(seats.ingest, reserved=reserved(seats.ingest))
        nodes = await _nodes(stack, database, configuration, seats.ingest)
        parts = build_parts(
            configuration,
            database,
            clock,
            ingest_gate,
            calls_gate,
            nodes=nodes,
            engine_limits=engine_limits,
            server_limits=server_limits,
            monitoring=monitoring,
        )
        await stack.enter_async_context(started(parts))

        in_flight = CallsInFlight()
        front_socket = stack.enter_context(forwarding()) if front is not None else None
        deadline = Deadline(configuration.unary_deadline, infrastructure_request=server_limits.infrastructure_request)
        server = listener.build_server(
            configuration,
            authenticator,
            calls_gate,
            in_flight,
            deadline,
            max_unidentified=server_limits.unidentified_calls,
            quotas=parts.quotas,
            shares_port=shares_port,
            monitoring=monitoring.calls,
            forwarding=front_socket,
        )
        services = add_services(server, parts)
        health = readiness.health = _add_infrastructure(server, configuration, services, deadline)

        lock_watch = LockWatch(database)
        stack.push_async_callback(lock_watch.stop)
        lock_watch.start()
        if certificate is not None:
            monitoring.add_certificate(certificate)
        if monitored_at:
            await _measure(stack, parts, readiness, lock_watch, {"calls": calls_gate, "ingest": ingest_gate})
        port = listener.bind(server, host, configuration.listen_port, certificate)
        if front_socket is not None:
            listener.listen_to_front(server, front_socket)
        stack.push_async_callback(server.stop, 0)
        await server.start()
        _log_unused_modules(configuration)
        decoder = "native" if decodes_natively(configuration) else "python"
        logger.info(
            "listening on %s port %d",
            host,
            port,
            extra={
                "action": LogAction.LISTEN,
                "host": host,
                "port": port,
                "usage_decoder": decoder,
                "tls": _tls(configuration),
                "monitoring_port": None if configuration.metrics_listen is None else shown_at_port,
            },
        )
        await _follow_health(stack, database, health, server_limits.probe)
        _follow_revocations(stack, database, authenticator, server_limits.revocation_interval)
        serving_front = None
        if front is not None and front_socket is not None:
            serving_front = await _open_front(
                stack, front, configuration, front_socket, readiness, authenticator, shares_port=shares_port
            )
        on_listening(host, port)

        await listener.until_stop(server, shutdown)
        await _announce_stop(health, shutdown, configuration.propagation_delay)
        parts.drain.begin()
        logger.info("draining %d calls", in_flight.count, extra={"action": LogAction.DRAIN, "calls": in_flight.count})
        if serving_front is not None:
            await serving_front.begin_drain()
        await listener.stop(server, in_flight, shutdown, configuration.drain_timeout)
    logger.info("stopped", extra={"action": LogAction.STOPPED})


class _Readiness:
    """Whether load balancers may send calls: as the health service says, and not before there is one."""

    def __init__(self) -> None:
        self.health: HealthService | None = None

    @property
    def is_ready(self) -> bool:
        return self.health is not None and self.health.serving


async def _measure(
    stack: contextlib.AsyncExitStack,
    parts: Parts,
    readiness: _Readiness,
    lock_watch: LockWatch,
    gates: Mapping[str, FairSemaphore],
) -> None:
    """Adds the metrics of the process and its database, and measures until the stack closes."""
    instruments = parts.monitoring.instruments
    decoder = "native" if decodes_natively(parts.configuration) else "python"
    instruments.gauge(
        "tidemark_ready",
        "1 if the process can be used: the database accepts writes, and the process does not drain.",
        lambda: float(readiness.is_ready),
    )
    add_build_info(instruments, schema_revision=migrate.head(), decoder=decoder)
    add_pool(instruments, parts.database, lock_watch)
    add_gates(instruments, {**gates, "catch_up": parts.feeds.catch_up_gate})
    stack.enter_context(process_metrics(instruments))
    await stack.enter_async_context(embedded_metrics(instruments))
    quotas = parts.configuration.quotas
    for watch in (
        BacklogWatch(parts.database, parts.clock, instruments),
        EndsWatch(parts.database, parts.clock, instruments, quotas),
    ):
        stack.push_async_callback(watch.stop)
        watch.start()


def _log_unused_modules(configuration: Configuration) -> None:
    """Logs the compiled modules that exist and cannot be used: Python does their work, with more CPU."""
    for problem in filter(None, (DECODER_PROBLEM, ROWS_PROBLEM) if configuration.native else ()):
        logger.warning("%s; Python does its work", problem, extra={"action": LogAction.COMPILED_UNUSED})


def _tls(configuration: Configuration) -> str:
    """How much TLS the port has."""
    if configuration.tls_certificate is None:
        return "none"
    return "server" if configuration.tls_client_ca is None else "mutual"


async def _open_front(
    stack: contextlib.AsyncExitStack,
    front: Front,
    configuration: Configuration,
    front_socket: Forwarding,
    readiness: _Readiness,
    authenticator: Authenticator,
    *,
    shares_port: bool,
) -> ServingFront:
    """Lets the front listen until the stack closes, with the configured certificate. Raises what it raises then."""
    certificate = certificate_files(configuration)  # not the object that gRPC asks: each notices a change once
    backend = Backend(
        front_socket,
        None if certificate is None else renewed_context(certificate),
        lambda: readiness.is_ready,
        admission(authenticator, configuration, front_socket),
        shares_port,
    )
    return await stack.enter_async_context(front.serving(backend))


async def _nodes(
    stack: contextlib.AsyncExitStack, database: Database, configuration: Configuration, seats: int
) -> Nodes | None:
    """The workers of the database's cluster, until the stack closes; None if there are none. DatabaseUnavailable."""
    if configuration.database_nodes is None:
        return None
    nodes = await open_nodes(database, dict(configuration.database_nodes), seats=seats)
    if nodes is not None:
        stack.push_async_callback(nodes.stop)
        nodes.start()
    return nodes


async def _authenticator(
    configuration: Configuration, database: Database, clock: Clock, revocation_grace: float
) -> Authenticator:
    """The authenticator, started. Raises UnsafeListen, and DatabaseUnavailable."""
    hosts = [configuration.listen_host]
    if configuration.http_listen is not None:
        hosts.append(configuration.http_listen[0])
    authenticator = Authenticator(
        database, clock, listens_to_loopback_only=all(map(is_loopback, hosts)), revocation_grace=revocation_grace
    )
    await authenticator.start()
    return authenticator


def _add_infrastructure(
    server: grpc.aio.Server, configuration: Configuration, services: tuple[str, ...], deadline: Deadline
) -> HealthService:
    """Adds health, and reflection where it is configured."""
    health = HealthService(services, configuration.max_connections)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if configuration.reflection:
        add_reflection(server, (*services, "grpc.health.v1.Health"), deadline.infrastructure)
    return health


async def _follow_health(
    stack: contextlib.AsyncExitStack, database: Database, health: HealthService, intervals: ProbeIntervals
) -> None:
    """Probes the database once, and then lets the health service follow it."""
    probe = Probe(database.url, intervals)
    stack.push_async_callback(probe.close)
    await health.probe(probe)
    _start(stack, health.following(probe))


def _follow_revocations(
    stack: contextlib.AsyncExitStack, database: Database, authenticator: Authenticator, interval: float
) -> None:
    """Ends streams whose key is revoked. Uses a pool of its own, so that a busy service does not delay it."""
    pool = Database(database.url, pool_size=1)
    stack.push_async_callback(pool.close)
    _start(stack, authenticator.revocations(pool, interval))


async def _announce_stop(health: HealthService, shutdown: Shutdown, propagation_delay: float) -> None:
    """Reports NOT_SERVING, and waits until load balancers have noticed. New calls are served until then."""
    health.begin_drain()
    logger.info("stopping: NOT_SERVING", extra={"action": LogAction.NOT_SERVING})
    await shutdown.sleep(propagation_delay)


def _start(stack: contextlib.AsyncExitStack, task: BackgroundTask) -> None:
    """Starts the task, and stops it when the stack closes."""
    stack.push_async_callback(task.stop)
    task.start()
