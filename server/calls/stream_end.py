"""When a stream without an end of its own has to end."""

import asyncio

from server.calls import current_call
from server.calls.lifecycle import Drain

MAX_STREAM_AGE = 30 * 60.0  # seconds; less than the grace that the server gives the streams of an aged connection


async def wait_for_stream_end(drain: Drain, max_age: float = MAX_STREAM_AGE) -> None:
    """Returns when the server drains, when the stream is `max_age` seconds old, or when its key allows it no more."""
    events = [drain.begun]
    if (stream := current_call.get().stream) is not None:
        events.append(stream.revoked)
    waits = [asyncio.create_task(event.wait(), name="stream-end") for event in events]
    try:
        await asyncio.wait(waits, timeout=max_age, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
