"""When a stream that could go on for ever has to end."""

import asyncio

from server.calls import call as calls
from server.calls.lifecycle import Drain


async def time_to_leave(drain: Drain, age: float) -> None:
    """Returns when the server drains, the stream is `age` seconds old, or its key has ended."""
    events = [drain.begun]
    if (revoked := calls.current().revoked) is not None:
        events.append(revoked)
    waits = [asyncio.create_task(event.wait(), name="leaving") for event in events]
    try:
        await asyncio.wait(waits, timeout=age, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
