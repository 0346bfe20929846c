"""When a stream without an end of its own has to end."""

import asyncio

from server.calls import current_call
from server.calls.lifecycle import Drain
from server.calls.once import complete

MAX_STREAM_AGE = 30 * 60.0  # seconds; less than the grace that the server gives the streams of an aged connection


def stream_end(drain: Drain, max_age: float = MAX_STREAM_AGE) -> asyncio.Future[None]:
    """Completes when the server drains, when the stream is `max_age` seconds old, or when its key allows it no more.

    Cancel it when the stream has ended.
    """
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[None] = loop.create_future()
    drain.begun.completes(ending)
    if (stream := current_call.get().stream) is not None:
        stream.revoked.completes(ending)
    timer = loop.call_later(max_age, complete, ending)
    ending.add_done_callback(lambda _: timer.cancel())
    return ending
