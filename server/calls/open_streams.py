"""The open streams of each key, and how they end when the key does.

A stream is asked to end first: handlers race `calls.Call.revoked`, answer what they have read, and raise `refusal`. A
stream that has not ended a little later is cut: its handler does not race, or its client reads nothing.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from generated.tidemark.v1 import error_reason_pb2
from server.calls import call as calls
from server.calls.errors import Unauthenticated

GRACE = 2.0  # seconds that a stream has to answer what it has read


@dataclass(eq=False, slots=True)
class OpenStream:
    """One stream: its task, whether it was asked to end, and whether it was cut."""

    key_id: str  # empty where the caller needed none
    task: "asyncio.Task[object]"
    revoked: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False
    timer: asyncio.TimerHandle | None = None


class OpenStreams:
    """Every stream of the API that is open in this process, by the id of its key."""

    def __init__(self) -> None:
        self._by_key: dict[str, set[OpenStream]] = {}

    @property
    def key_ids(self) -> set[str]:
        """The keys that have open streams; an empty id stands for callers without one."""
        return set(self._by_key)

    def open(self, key_id: str) -> OpenStream:
        """Registers the stream that the current task serves."""
        task = asyncio.current_task()
        assert task is not None
        stream = OpenStream(key_id, task)
        self._by_key.setdefault(key_id, set()).add(stream)
        return stream

    def close(self, stream: OpenStream) -> None:
        """Forgets a stream that has ended; closing it twice does nothing."""
        if stream.timer is not None:
            stream.timer.cancel()
        streams = self._by_key.get(stream.key_id)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._by_key[stream.key_id]

    def end(self, key_ids: Iterable[str]) -> int:
        """Asks every stream of these keys to end, and cuts it when it takes too long; returns how many it asked."""
        loop = asyncio.get_running_loop()
        asked = 0
        for stream in [stream for key_id in key_ids for stream in self._by_key.get(key_id, ())]:
            if not stream.revoked.is_set():
                asked += 1
                stream.revoked.set()
                stream.timer = loop.call_later(GRACE, _cut, stream)
        return asked


def refusal(key_id: str) -> Unauthenticated:
    """What a stream ends with when its key does."""
    if key_id:
        message = f"the API key {key_id} of this stream was revoked"
    else:
        message = (
            "this stream carries no API key, and one exists since:"
            " open it again with the metadata `authorization: Bearer KEY`"
        )
    return Unauthenticated(
        error_reason_pb2.ERROR_REASON_UNAUTHENTICATED, message + "; what was acknowledged is counted"
    )


def raise_if_revoked() -> None:
    """Raises Unauthenticated when the key of the current call has ended."""
    call = calls.current()
    if call.revoked is not None and call.revoked.is_set() and call.caller is not None:
        raise refusal(call.caller.key_id)


def _cut(stream: OpenStream) -> None:
    # Ends an await of the handler, or the write of an answer that the client does not read.
    stream.cut = True
    stream.task.cancel()
