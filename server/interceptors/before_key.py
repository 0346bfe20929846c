"""What callers may hold of the server before it knows who they are."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from generated.tidemark.v1 import error_reason_pb2
from server.calls import call as calls
from server.calls import errors
from server.calls.places import RETRY, Places
from server.interceptors.around import Around, Context, when_over

MAX_UNIDENTIFIED = 1_024  # calls whose keys are looked up at the same time
# Calls of health and reflection on one connection. They need no key, and an answer that its caller does not take
# cannot be given up: it stays for as long as the connection does. Health checks need one or two.
MAX_INFRASTRUCTURE_CALLS = 16
MAX_REFLECTION_CALLS = 64  # of all connections: their answers are large

_REFLECTION = "/grpc.reflection."


class BeforeKey(Around):
    """Bounds the calls of health and reflection on a connection, and those whose key is being looked up.

    It contains the interceptor that identifies callers, whose part before the handler is what it bounds.
    """

    def __init__(self, identify: Around) -> None:
        self._identify = identify
        self._places = Places(MAX_UNIDENTIFIED, "their keys to be looked up")
        self._infrastructure = Counter[str]()

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Counts the call until it is over, or until its caller is known."""
        if calls.current().is_infrastructure:
            await self._count(method, context)
            yield
            return
        place = self._places.enter(context.peer())
        try:
            async with self._identify.around(method, streaming, context):
                self._places.leave(place)
                yield
        except asyncio.CancelledError:
            if not place.gave_way():
                raise
            await errors.abort(context, self._places.refusal())
        finally:
            self._places.leave(place)

    async def _count(self, method: str, context: Context) -> None:
        bounds = [(context.peer(), MAX_INFRASTRUCTURE_CALLS, "this connection has")]
        if method.startswith(_REFLECTION):
            bounds.append((_REFLECTION, MAX_REFLECTION_CALLS, "the server has"))
        for counted, limit, has in bounds:
            if self._infrastructure[counted] >= limit:
                await errors.abort(context, _too_many_open(has, limit))
        self._infrastructure.update(counted for counted, _, _ in bounds)

        # Not in `finally`: a generator that was dropped in the middle of a write runs it only when it is collected.
        def over(_: Context) -> None:
            for counted, *_limit in bounds:
                self._infrastructure[counted] -= 1
                if not self._infrastructure[counted]:
                    del self._infrastructure[counted]

        when_over(context, over)


def _too_many_open(has: str, limit: int) -> errors.ResourceExhausted:
    return errors.ResourceExhausted(
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        f"{has} {limit} open calls of health or reflection, the most that are allowed: end one of them",
        metadata={"limit": str(limit)},
        retry_after=RETRY,
    )
