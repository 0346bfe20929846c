"""Bounds the time of unary calls that bring no deadline of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from generated.tidemark.v1 import error_reason_pb2
from server import errors
from server.interceptors.around import Around, Context


class Deadline(Around):
    """Ends a unary call that brings no deadline after `default` seconds.

    gRPC itself enforces the deadlines of callers; streams may last.
    """

    def __init__(self, default: float) -> None:
        self._default = default

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Runs the call under the default deadline where one is needed."""
        if streaming or context.time_remaining() is not None:
            yield
            return
        limit = asyncio.timeout(self._default)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            await errors.abort(
                context,
                errors.DeadlineExceeded(
                    error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
                    f"the call took longer than {self._default:g} seconds, the limit for calls that bring no"
                    " deadline; whether it took effect is unknown: repeat it with the same ids",
                ),
            )
