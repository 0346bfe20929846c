"""The health service: SERVING for every service while the database takes writes, and `liveness` in any case."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from generated.tidemark.v1 import error_reason_pb2
from server.calls import errors
from server.calls.places import Places
from store.postgres import probe as signs
from store.postgres.probe import Probe

LIVENESS = "liveness"  # for restarts: a database outage must not restart every replica
MAX_NAME_BYTES = 256  # of a service; longer names are no services, and a watch would hold them
MAX_WATCHES = 1_000

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

logger = logging.getLogger(__name__)


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 for the given services, for the server as a whole (``""``) and for `liveness`.

    Not the servicer of grpcio-health-checking: that one writes to watchers while it holds the lock that a
    change of status needs, so one watcher that stops reading keeps the news from all others; and in a drain
    it reports `liveness` as lost.
    """

    def __init__(self, services: Iterable[str], max_watches: int = MAX_WATCHES) -> None:
        """`max_watches` is how many watches of all callers may wait for news."""
        self._watches = Places(max_watches, "changes of health")
        self._services = frozenset({"", *services})
        self._serving = False
        self._draining = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether the services report SERVING."""
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """Reports all services as SERVING or NOT_SERVING; after a drain began, always NOT_SERVING."""
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
        """Takes the status from one look at the database."""
        self._take(await probe.problem(signs.TIMEOUT))

    async def follow(self, probe: Probe) -> None:
        """Keeps the status at what the database's signs of life say, until cancelled."""
        await probe.follow(self._take)

    def _take(self, problem: str | None) -> None:
        if problem is None and not self._serving and not self._draining:
            logger.info("the database takes writes: SERVING", extra={"action": "serving"})
        if problem is not None and self._serving:
            logger.error(
                "the database cannot be worked with: NOT_SERVING (%s)", problem, extra={"action": "not_serving"}
            )
        self.set_serving(problem is None)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """The status of one service; NOT_FOUND for one that this server does not have."""
        _check_name(request.service)
        status = self._status(request.service)
        if status == _SERVICE_UNKNOWN:
            # The name is not repeated: callers need no key, and an answer is no larger than it has to be.
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of that name here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status of one service, and again at each change; RESOURCE_EXHAUSTED when others need the place."""
        _check_name(request.service)
        connection = context.peer()
        last = None
        while True:
            changed = self._changed  # before the status is read: a change in between is not lost
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
