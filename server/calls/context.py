"""gRPC's context of a call, as handlers and interceptors use it."""

from collections.abc import Callable
from typing import Any

import grpc

# Interceptors pass messages on as they are, and handlers use the context of every RPC alike.
Context = grpc.aio.ServicerContext[Any, Any]


def when_over(context: Context, callback: Callable[[Context], None]) -> None:
    """Calls back when gRPC has finished the call: its last message is sent, or its client has gone.

    Use it where `finally` is too late: a generator that is dropped in the middle of a write runs its `finally` only
    when Python collects it, while gRPC calls back immediately.
    """
    # The stubs ask for an instance of a class that is not a protocol, so no function can be one.
    context.add_done_callback(callback)  # type: ignore[arg-type]
