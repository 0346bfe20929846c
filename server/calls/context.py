"""gRPC's context of a call, as handlers and interceptors use it."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

# Interceptors pass messages on as they are, and handlers use the context of every RPC alike.
Context = grpc.aio.ServicerContext[Any, Any]


def when_over(callback: Callable[[object], None]) -> None:
    """Calls back when the current call is over: its last message is sent, or its client has gone.

    Use it where `finally` is too late: a generator that is dropped in the middle of a write runs its `finally` only
    when Python collects it, while the task of the call has ended before. gRPC's own `context.add_done_callback` calls
    back at the same time, and leaves a cycle, because the state of the call keeps the callbacks and they the context.
    """
    task = asyncio.current_task()
    assert task is not None  # gRPC runs each call in a task of its own
    task.add_done_callback(callback)
