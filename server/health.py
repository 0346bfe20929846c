"""The health service: SERVING for every service while the database accepts writes; `liveness` is always SERVING."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from generated.tidemark.v1 import error_reason_pb2
from runtime.actions import LogAction
from runtime.tasks import BackgroundTask
from server.calls import errors
from server.calls.bounded_waits import BoundedWaits
from store.postgres.probe import TIMEOUT, Probe

LIVENESS = "liveness"  # decides about restarts: an outage of the database must not restart every replica
MAX_NAME_BYTES = 256  # of a service; no service has a longer name, and a watch would keep it in memory
MAX_WATCHES = 1_000

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

logger = logging.getLogger(__name__)


class HealthService(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 for the given services, for the server as a whole (``""``) and for `liveness`.

    It replaces the servicer of grpcio-health-checking. That servicer writes to a watch while it holds the lock that a
    change of status needs, so one client that does not read delays the status of all others. And in a drain it
    reports `liveness` as NOT_SERVING.
    """

    def __init__(self, services: Iterable[str], max_watches: int = MAX_WATCHES) -> None:
        """max_watches: the watches of all callers that may wait for a change."""
        self._watches = BoundedWaits(max_watches, "changes of health")
        self._services = frozenset({"", *services})
        self._serving = False
        self._draining = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether the services report SERVING."""
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """Reports all services as SERVING or NOT_SERVING; always as NOT_SERVING after a drain has begun."""
        serving = serving and not self._draining
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    def begin_drain(self) -> None:
        """Reports all services as NOT_SERVING from now on."""
        self._draining = True
        self.set_serving(False)

    async def probe(self, probe: Probe) -> None:
        """Sets the status from one probe of the database."""
        self._take(await probe.problem(TIMEOUT))

    def following(self, probe: Probe) -> BackgroundTask:
        """The task that sets the status after each probe of the database."""
        return probe.following(self._take)

    def _take(self, problem: str | None) -> None:
        if problem is None and not self._serving and not self._draining:
            logger.info("the database accepts writes: SERVING", extra={"action": LogAction.SERVING})
        if problem is not None and self._serving:
            logger.error(
                "the database is not usable: NOT_SERVING (%s)", problem, extra={"action": LogAction.NOT_SERVING}
            )
        self.set_serving(problem is None)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """The status of one service; NOT_FOUND for one that this server does not have."""
        _check_name(request.service)
        status = self._status(request.service)
        if status == _SERVICE_UNKNOWN:
            # The answer does not repeat the name: callers need no key, so answers are kept small.
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of that name here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of one service now, and again at each change. Ends when too many watches wait."""
        _check_name(request.service)
        connection = context.peer()
        last = None
        while True:
            changed = self._changed  # before the status is read, so that a change in between is not missed
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            with self._watches.waiting(connection):
                await changed.wait()

    def _status(self, service: str) -> int:
        if service == LIVENESS:
            return _SERVING
        if service not in self._services:
            return _SERVICE_UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING


def _check_name(service: str) -> None:
    size = len(service.encode())
    if size > MAX_NAME_BYTES:
        raise errors.InvalidArgument(
            error_reason_pb2.ERROR_REASON_INVALID_FIELD,
            f"service: the name has {size} bytes; at most {MAX_NAME_BYTES} are allowed",
            violations=[errors.FieldViolation("service", f"it has more than {MAX_NAME_BYTES} bytes")],
        )
