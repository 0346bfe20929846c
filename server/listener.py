"""The gRPC server of a process: its settings, its interceptors, its port, and its stop."""

import asyncio
import logging
from collections.abc import Container, Mapping
from typing import Any

import grpc

from engine.quotas.organization_quotas import OrganizationQuotas
from runtime.actions import LogAction
from runtime.configuration import Configuration
from runtime.fair_semaphore import FairSemaphore
from runtime.forwarding import Forwarding
from server.accepting import refuse_bad_paths
from server.authentication.api_keys import Authenticator
from server.authentication.certificates import TrustedProxies
from server.calls.lifecycle import CallsInFlight, Shutdown
from server.calls.monitoring import CallMonitoring
from server.calls.organization_shares import OrganizationShares
from server.interceptors.access_log import AccessLog
from server.interceptors.authentication import Authenticate
from server.interceptors.deadline import Deadline
from server.interceptors.errors import Errors
from server.interceptors.in_flight import CountInFlight
from server.interceptors.monitoring import MeasureCalls
from server.interceptors.organization_shares import LimitToShare
from server.interceptors.outcome import NoteOutcome
from server.interceptors.request_id import RequestId
from server.interceptors.tracing import Tracing
from server.interceptors.unauthenticated_limits import UnauthenticatedLimits
from server.interceptors.wrapping import Together
from server.services import decoders, error_tables
from server.tls import CertificateFiles

KEEPALIVE_TIME = 60_000  # milliseconds without traffic after which the server pings a connection
KEEPALIVE_TIMEOUT = 20_000  # milliseconds until the answer to a ping must arrive
MIN_PING_INTERVAL = 30_000  # milliseconds; the server closes connections of clients that ping more often
MAX_CONNECTION_AGE = 30 * 60_000  # milliseconds; clients connect again, so that new replicas get their part
# Milliseconds that calls on an aged connection may still take. More than server.calls.stream_end.MAX_STREAM_AGE, so
# that a stream ends by itself with `going_away`, and gRPC does not cut it.
MAX_CONNECTION_AGE_GRACE = 40 * 60_000
MAX_CONNECTION_IDLE = 5 * 60_000  # milliseconds without a call after which the server closes a connection
HANDSHAKE_TIMEOUT = 10_000  # milliseconds from a connection to its first settings
READ_AHEAD = 65_536  # bytes of a call that a connection accepts before the server reads them
MAX_CONCURRENT_STREAMS = 1_024  # calls at the same time on one connection
# grpc.aio accepts calls one after the other. A registered method has a queue of its own, so that a flood of one
# method does not delay the calls of others; all methods that are not registered share a queue. For each registered
# method, grpc.aio begins its wait for the next call again at each call of any of them: with all 74 methods that takes
# 0.1 ms a call. So only those are registered that many callers call at the same time, and those that must be answered
# meanwhile.
METHODS_WITH_A_QUEUE = frozenset(
    {
        "Check",  # of the health service
        "CreateAlert",
        "DecrementBalances",
        "EvaluateUsage",
        "EvaluateUsageBatch",
        "GetAlert",
        "GetCustomerAlert",
        "PutCustomer",
        "PutSubscription",
        "WatchNotifications",
    }
)
LAST_GRACE = 0.5  # seconds for connections to close after the last call has ended

logger = logging.getLogger(__name__)


class CannotListen(Exception):
    """The server cannot listen on the address."""

    @classmethod
    def on(cls, address: str) -> "CannotListen":
        """The error of an address."""
        return cls(
            f"cannot listen on {address}: another server uses the port, or this machine does not have the address"
        )


class ListenerEnded(Exception):
    """gRPC has ended the server by itself. The process serves no call any more, and has to end, too."""

    def __init__(self) -> None:
        super().__init__("gRPC ended the server because of a fault in it; its own log line before has the cause")


def build_server(
    configuration: Configuration,
    authenticator: Authenticator,
    calls_gate: FairSemaphore,
    in_flight: CallsInFlight,
    deadline: Deadline,
    *,
    max_unidentified: int,
    quotas: OrganizationQuotas,
    shares_port: bool = False,
    monitoring: CallMonitoring | None = None,
    forwarding: Forwarding | None = None,
) -> grpc.aio.Server:
    """The server without services. A call passes the interceptors from the first to the last.

    calls_gate: the connections to the database that calls may use. max_unidentified: see `UnauthenticatedLimits`.
    shares_port: other servers may listen on the same port; each gets some of the connections. monitoring: measures
    the calls. forwarding: the socket of the front, on which the server listens, too; see `listen_to_front`.
    """
    proxies = TrustedProxies.of(configuration.trusted_proxies)
    shares = OrganizationShares(
        calls_gate,
        most_of_one=configuration.organization_calls,
        streams_of_one=configuration.organization_streams,
    )
    refuse_bad_paths()
    server = grpc.aio.server(
        interceptors=(
            Together(
                RequestId(forwarding),
                NoteOutcome(),
                Tracing(),
                AccessLog(),
                MeasureCalls(monitoring or CallMonitoring()),
                CountInFlight(in_flight),
                UnauthenticatedLimits(Authenticate(authenticator, proxies), max_unidentified=max_unidentified),
            ),
            deadline,
            LimitToShare(shares, quotas),
            Errors(
                configuration.max_message_bytes,
                error_tables(configuration),
                decoders(configuration),
                quotas=quotas,
            ),
        ),
        options=_options(configuration, shares_port=shares_port),
    )
    _register_only(server, METHODS_WITH_A_QUEUE)
    return server


def _register_only(server: grpc.aio.Server, names: Container[str]) -> None:
    """Has generated code register only these methods; all are generic handlers as well, which suffice."""
    register = server.add_registered_method_handlers

    def register_some(service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]) -> None:
        register(service_name, {name: one for name, one in method_handlers.items() if name in names})

    server.add_registered_method_handlers = register_some  # type: ignore[method-assign]


def bind(server: grpc.aio.Server, host: str, port: int, certificate: CertificateFiles | None = None) -> int:
    """Binds the server to the address, and returns the port. Raises CannotListen.

    certificate: for TLS; None: the port has none.
    """
    address = address_of(host, port)
    try:
        if certificate is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificate.credentials())
    except RuntimeError as error:
        raise CannotListen.on(address) from error


def listen_to_front(server: grpc.aio.Server, forwarding: Forwarding) -> None:
    """Binds the server to the socket of its front, too. Calls there have to show that they are of the front."""
    server.add_insecure_port(forwarding.target)


def address_of(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def until_stop(server: grpc.aio.Server, shutdown: Shutdown) -> None:
    """Waits until a stop is requested. Raises ListenerEnded if gRPC ends the server before.

    The task in which grpc.aio accepts calls ends with the first exception in it (`server.accepting`). grpc.aio then
    stops the server, and the process would go on without a port.
    """
    requested = asyncio.create_task(shutdown.requested.wait(), name="stop-requested")
    ended = asyncio.create_task(_ended(server), name="server-ended")
    try:
        await asyncio.wait({requested, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not requested.done():
            raise ListenerEnded
    finally:
        requested.cancel()
        ended.cancel()
        await asyncio.gather(requested, ended, return_exceptions=True)


async def _ended(server: grpc.aio.Server) -> None:
    # With a timeout: a wait without one is cancelled together with the future that the stop of the server sets.
    while await server.wait_for_termination(timeout=3_600.0):
        pass


async def stop(server: grpc.aio.Server, in_flight: CallsInFlight, shutdown: Shutdown, timeout: float) -> None:
    """Stops the server when no call is in flight; after `timeout` seconds, or when forced, it cuts the calls."""
    # server.stop(grace) refuses new calls immediately. It takes the whole grace while any stream is open, also the
    # health watch of a client. So its grace is longer than the wait, and a second stop ends it after the last call.
    closing = asyncio.create_task(server.stop(timeout + LAST_GRACE), name="stop")
    idle = asyncio.create_task(in_flight.idle(), name="idle")
    forced = asyncio.create_task(shutdown.forced.wait(), name="forced")
    await asyncio.wait({idle, forced}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if in_flight.count:
        logger.warning(
            "cutting %d calls", in_flight.count, extra={"action": LogAction.CUT_OFF, "calls": in_flight.count}
        )
    await server.stop(0 if in_flight.count else LAST_GRACE)
    await closing
    idle.cancel()
    forced.cancel()
    await asyncio.gather(idle, forced, return_exceptions=True)


def _options(configuration: Configuration, *, shares_port: bool) -> list[tuple[str, int]]:
    return [
        # A little more than the limit, so that the Errors interceptor refuses a message just above it with a reason.
        # gRPC refuses a larger message as soon as it has read the length, and keeps none of its bytes.
        ("grpc.max_receive_message_length", configuration.max_message_bytes * 9 // 8 + 1024),
        # With windows that grow with the traffic, callers could send megabytes into calls that no handler reads. The
        # window of a message that is being read grows to the size of the message.
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
        # When it is on, a second server shares the port without an error, and gets half of the calls.
        ("grpc.so_reuseport", int(shares_port)),
    ]
