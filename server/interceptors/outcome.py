"""Notes how the code of each call ended, for what observes its end: the access log, metrics and traces."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.calls import current_call
from server.calls.context import Context
from server.calls.tracebacks import free_after_call
from server.interceptors.wrapping import Around


class NoteOutcome(Around):
    """Sets `outcome` of the call. gRPC's own code, if there is one, comes first."""

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Surrounds all that can end the call.

        When the client leaves during a write, gRPC drops the generator of the stream without an exception. So a call
        that has no outcome when gRPC calls back was cancelled.
        """
        call = current_call.get()
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                call.outcome = grpc.StatusCode.UNKNOWN  # gRPC's code, unless the call was aborted with another
            free_after_call(error)
            raise
        call.outcome = grpc.StatusCode.OK
