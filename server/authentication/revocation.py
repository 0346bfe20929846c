"""The open streams of each API key, and how they end when the key is revoked.

A stream is requested to end first: its handler waits for `Call.revoked`, answers what it has read, and raises
`refusal`. A stream that is still open after the grace is cut: its handler does not wait for the event, or its client
does not read.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from generated.tidemark.v1 import error_reason_pb2
from server.calls import current_call
from server.calls.errors import Unauthenticated

GRACE = 2.0  # seconds in which a stream can answer what it has read


@dataclass(eq=False, slots=True)
class OpenStream:
    """One stream. revoked: it was requested to end. cut: its task was cancelled."""

    key_id: str  # empty where the caller needs no key
    task: "asyncio.Task[object]"
    revoked: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False
    timer: asyncio.TimerHandle | None = None


class OpenStreams:
    """All open streams of the API in this process, by the id of their key."""

    def __init__(self, grace: float = GRACE) -> None:
        """grace: seconds in which a stream can answer what it has read."""
        self._grace = grace
        self._by_key: dict[str, set[OpenStream]] = {}

    @property
    def key_ids(self) -> set[str]:
        """The keys that have open streams; an empty id stands for callers without a key."""
        return set(self._by_key)

    def open(self, key_id: str) -> OpenStream:
        """Registers the stream that the current task serves."""
        task = asyncio.current_task()
        assert task is not None
        stream = OpenStream(key_id, task)
        self._by_key.setdefault(key_id, set()).add(stream)
        return stream

    def close(self, stream: OpenStream) -> None:
        """Removes a stream that has ended; does nothing when it was removed before."""
        if stream.timer is not None:
            stream.timer.cancel()
        streams = self._by_key.get(stream.key_id)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._by_key[stream.key_id]

    def end(self, key_ids: Iterable[str]) -> int:
        """Requests every stream of these keys to end; cuts it after the grace. Returns the number of new requests."""
        loop = asyncio.get_running_loop()
        requested = 0
        for stream in [stream for key_id in key_ids for stream in self._by_key.get(key_id, ())]:
            if not stream.revoked.is_set():
                requested += 1
                stream.revoked.set()
                stream.timer = loop.call_later(self._grace, _cut, stream)
        return requested


def refusal(key_id: str) -> Unauthenticated:
    """The error of a stream whose key is revoked."""
    if key_id:
        message = f"the API key {key_id} of this stream was revoked"
    else:
        message = (
            "this stream carries no API key, and a key was created after it began:"
            " open it again with the metadata `authorization: Bearer KEY`"
        )
    return Unauthenticated(
        error_reason_pb2.ERROR_REASON_UNAUTHENTICATED, message + "; events that were acknowledged are counted"
    )


def raise_if_revoked() -> None:
    """Raises Unauthenticated when the key of the current call is revoked."""
    call = current_call.get()
    if call.revoked is not None and call.revoked.is_set() and call.caller is not None:
        raise refusal(call.caller.key_id)


def _cut(stream: OpenStream) -> None:
    # Ends an await of the handler, or the write of an answer that the client does not read.
    stream.cut = True
    stream.task.cancel()
