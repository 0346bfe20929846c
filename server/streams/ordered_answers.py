"""Ordered answers: streams whose messages are read ahead, and answered in their order."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

from server.authentication.revocation import raise_if_revoked
from server.calls.once import complete

# Limits of one stream: messages, and events or requests in them, that are read and not answered yet. Above them the
# stream is not read, so that gRPC's flow control slows down a fast client, and the client gets no RESOURCE_EXHAUSTED.
MAX_STREAM_MESSAGES = 64
MAX_STREAM_EVENTS = 10_000  # a single message may have more

Answer = TypeVar("Answer")


class OrderedAnswers(Generic[Answer]):
    """The answers of one stream that are not sent yet, in the order of their messages.

    Messages are read ahead, so that several share a commit.
    """

    __slots__ = ("_answered", "_answers", "_events", "_max_events", "_messages", "_waiting", "_woken")

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        # Each with the number of its events. Futures instead of events, and a short list instead of a deque, which
        # takes 760 bytes when it is empty: many streams are idle.
        self._answers: list[tuple[asyncio.Task[Answer], int]] = []
        self._woken = False
        self._waiting: asyncio.Future[None] | None = None
        self._messages = self._events = 0  # that are read and not answered yet
        self._answered: asyncio.Future[None] | None = None

    async def make_room(self, size: int) -> None:
        """Waits until the limits of the stream allow another message with `size` events."""
        while self._messages and (self._messages >= MAX_STREAM_MESSAGES or self._events + size > self._max_events):
            self._answered = asyncio.get_running_loop().create_future()
            await self._answered
        self._messages += 1
        self._events += size

    def add(self, answer: asyncio.Task[Answer], size: int) -> None:
        """Adds the answer to a message with `size` events, for which `make_room` has waited."""
        self._answers.append((answer, size))
        self.wake()

    async def sent(
        self,
        reading: asyncio.Task[None],
        ending: asyncio.Future[None],
        *,
        heartbeat: float,
        alive: Callable[[], Answer],
        going_away: Callable[[], Answer],
    ) -> AsyncGenerator[Answer, None]:
        """The answers to send, until the reading of messages has ended, or the stream has to end.

        The end of the messages has no meaning: gRPC shows a client that has gone in the same way as one that has
        sent its last message. heartbeat: seconds without an answer after which `alive` is sent. Both futures are
        cancelled in the end. Raises the exception that ended the reading, once all messages before are answered.
        """
        reading.add_done_callback(self.wake)
        ending.add_done_callback(self.wake)
        try:
            while True:
                while self._answers and not ending.done():
                    yield await self._next()
                if reading.done() or ending.done():
                    break
                if not await self.woken(heartbeat):
                    yield alive()
            ended_by_server = not reading.done()
            reading.cancel()
            await asyncio.wait({reading})
            # Messages that were read are answered. The client sends the others again.
            while self._answers:
                yield await self._next()
            raise_if_revoked()
            if ended_by_server:
                yield going_away()
            elif not reading.cancelled():
                reading.result()  # raises the exception that ended the reading
        finally:
            reading.cancel()
            ending.cancel()
            for answer, _ in self._answers:
                answer.cancel()

    def wake(self, _: object = None) -> None:
        """Ends the wait of `woken`, or else the next one: an answer has been added, or a task of the stream ended."""
        self._woken = True
        self._end_wait()

    async def woken(self, timeout: float) -> bool:
        """Waits for `wake`, at most `timeout` seconds; returns whether it was called since the last time."""
        # Each message waits here, and a task and an asyncio.wait would cost it more than all else in this module.
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(timeout, self._end_wait)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        woken, self._woken = self._woken, False
        return woken

    def _end_wait(self) -> None:
        if self._waiting is not None:
            complete(self._waiting)

    async def _next(self) -> Answer:
        """Waits for the next answer."""
        task, size = self._answers.pop(0)
        answer = await task
        self._messages -= 1
        self._events -= size
        if self._answered is not None:
            complete(self._answered)
        return answer


def retrieve(answer: asyncio.Task[Answer]) -> None:
    """Reads the exception of an answer whose stream was cut: asyncio would log one that is never retrieved."""
    if not answer.cancelled():
        answer.exception()
