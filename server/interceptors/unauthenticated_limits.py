"""Limits what a caller can hold of the server without an API key, or before its key is checked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from generated.tidemark.v1 import error_reason_pb2
from server.calls import current_call, errors
from server.calls.bounded_waits import RETRY, BoundedWaits
from server.calls.context import Context, when_over
from server.interceptors.wrapping import Around

MAX_UNIDENTIFIED = 1_024  # calls whose keys are read from the database at the same time
# Calls of health and reflection on one connection. They need no key. The server cannot end an answer that the client
# does not read: it stays in memory until the connection closes. A health check needs one or two calls.
MAX_INFRASTRUCTURE_CALLS = 16
MAX_REFLECTION_CALLS = 64  # of all connections, because these answers are large

_REFLECTION = "/grpc.reflection."


class UnauthenticatedLimits(Around):
    """Limits the calls of health and reflection on a connection, and the calls whose key is being checked.

    It contains the interceptor that authenticates, and limits the part of it that runs before the handler.
    """

    def __init__(self, authenticate: Around, *, max_unidentified: int = MAX_UNIDENTIFIED) -> None:
        """max_unidentified: calls whose keys are being checked."""
        self._authenticate = authenticate
        self._waits = BoundedWaits(max_unidentified, "the check of their keys")
        self._infrastructure = Counter[str]()

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Counts a call of health or reflection until it is over, any other call until its caller is known."""
        if current_call.get().is_infrastructure:
            await self._count(method, context)
            yield
            return
        wait = self._waits.begin(current_call.get().peer)
        try:
            async with self._authenticate.around(method, streaming, context):
                self._waits.end(wait)
                yield
        except asyncio.CancelledError:
            if not wait.was_evicted():
                raise
            await errors.abort(context, self._waits.refusal())
        finally:
            self._waits.end(wait)

    async def _count(self, method: str, context: Context) -> None:
        limits = [(context.peer(), MAX_INFRASTRUCTURE_CALLS, "this connection has")]
        if method.startswith(_REFLECTION):
            limits.append((_REFLECTION, MAX_REFLECTION_CALLS, "the server has"))
        for counted, limit, has in limits:
            if self._infrastructure[counted] >= limit:
                await errors.abort(context, _too_many_open(has, limit))
        self._infrastructure.update(counted for counted, _, _ in limits)

        def over(_: object) -> None:
            for counted, *_limit in limits:
                self._infrastructure[counted] -= 1
                if not self._infrastructure[counted]:
                    del self._infrastructure[counted]

        when_over(over)


def _too_many_open(has: str, limit: int) -> errors.ResourceExhausted:
    return errors.ResourceExhausted(
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        f"{has} {limit} open calls of health or reflection, the maximum: end one of them",
        metadata={"limit": str(limit)},
        retry_after=RETRY,
    )
