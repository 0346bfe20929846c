"""The open streams of each API key, and how they end when the key does not allow them any more.

A stream is requested to end first: its handler waits for `revoked`, answers what it has read, and raises the refusal.
A stream that is still open after the grace is cut: its handler does not wait for the event, or its client does not
read.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from generated.tidemark.v1 import error_reason_pb2
from server.calls import current_call
from server.calls.errors import ApiError, Unauthenticated
from server.calls.once import Once
from store.identity.callers import Caller

GRACE = 2.0  # seconds in which a stream can answer what it has read
_LONGEST_TIMER = 86_400.0  # seconds; longer than any stream lasts


@dataclass(eq=False, slots=True)
class OpenStream:
    """One stream. revoked: it was requested to end, for the reason of `refusal`. cut: its task was cancelled.

    caller: as last reviewed.
    """

    caller: Caller
    method: str
    task: "asyncio.Task[object]"
    revoked: Once = field(default_factory=Once)
    refusal: Exception | None = None
    cut: bool = False
    timer: asyncio.TimerHandle | None = None


Review = Callable[[OpenStream], ApiError | None]


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

    def open(self, caller: Caller, method: str) -> OpenStream:
        """Registers the stream that the current task serves."""
        task = asyncio.current_task()
        assert task is not None
        stream = OpenStream(caller, method, task)
        self._by_key.setdefault(caller.key_id, set()).add(stream)
        return stream

    def close(self, stream: OpenStream) -> None:
        """Removes a stream that has ended; does nothing when it was removed before."""
        if stream.timer is not None:
            stream.timer.cancel()
        streams = self._by_key.get(stream.caller.key_id)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._by_key[stream.caller.key_id]

    def review(self, key_id: str, caller: Caller | None, refusal_of: Review) -> int:
        """Requests the streams of a key to end for which `refusal_of` has a reason, and cuts them after the grace.

        caller: as it is now. Streams that were reviewed with this very object are not reviewed again. Returns the
        number of new requests.
        """
        requested = 0
        for stream in list(self._by_key.get(key_id, ())):
            if stream.caller is caller or stream.revoked.is_set():
                continue
            if (refused := refusal_of(stream)) is not None:
                requested += 1
                self._end(stream, refused)
            elif caller is not None:
                stream.caller = caller
        return requested

    def end_later(self, stream: OpenStream, seconds: float, refused: Exception) -> None:
        """Requests a stream to end after so many seconds."""
        delay = min(max(seconds, 0.0), _LONGEST_TIMER)
        if delay < _LONGEST_TIMER:
            stream.timer = asyncio.get_running_loop().call_later(delay, self._end, stream, refused)

    def _end(self, stream: OpenStream, refused: Exception) -> None:
        if stream.revoked.is_set():
            return
        if stream.timer is not None:
            stream.timer.cancel()
        stream.refusal = refused
        stream.revoked.set()
        stream.timer = asyncio.get_running_loop().call_later(self._grace, _cut, stream)


def refusal(key_id: str) -> Unauthenticated:
    """The error of a stream whose key is revoked."""
    if key_id:
        return _refusal(f"the API key {key_id} of this stream was revoked")
    return _refusal(
        "this stream carries no API key, and a key was created after it began:"
        " open it again with the metadata `authorization: Bearer KEY`"
    )


def expired(key_id: str) -> Unauthenticated:
    """The error of a stream whose key has expired."""
    return _refusal(f"the API key {key_id} of this stream has expired")


def certificate_expired() -> Unauthenticated:
    """The error of a call or stream whose client certificate has expired since the connection was made."""
    return Unauthenticated(
        error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
        "the client certificate has expired: connect again with a new one; events that were acknowledged are counted",
    )


def _refusal(message: str) -> Unauthenticated:
    return Unauthenticated(
        error_reason_pb2.ERROR_REASON_UNAUTHENTICATED, message + "; events that were acknowledged are counted"
    )


def raise_if_revoked() -> None:
    """Raises the refusal when the key of the current call does not allow the stream any more."""
    stream = current_call.get().stream
    if stream is not None and stream.refusal is not None:
        raise stream.refusal


def _cut(stream: OpenStream) -> None:
    # Ends an await of the handler, or the write of an answer that the client does not read.
    stream.cut = True
    stream.task.cancel()
