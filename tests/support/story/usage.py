"""Usage of one client: a stream to one server, then to the other, or single calls."""

import asyncio
from collections.abc import Sequence
from random import Random

import grpc

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from runtime.tasks import is_cancelled
from tests.reference.gauges import Event
from tests.support.processes.outage import STATUS_LOST
from tests.support.story.servers import REPLICAS, RETRIED, RETRY_DELAY, Servers
from tests.support.usage.caller import DEADLINE, Caller, StreamCall
from tests.support.usage.words import message_of

Outcome = usage_pb2.UsageOutcome
Response = alert_service_pb2.EvaluateUsageResponse


class UsageCalls:
    """Sends batches one after another, each until it is answered."""

    def __init__(self, servers: Servers, random: Random, number: int) -> None:
        self._servers = servers
        self._random = random
        self._number = number
        self._stream: StreamCall | None = None

    async def send(self, events: Sequence[Event]) -> tuple[Outcome, bool]:
        """The outcome of a batch, and whether it was sent more than once, because a server stopped."""
        batch = usage_pb2.UsageBatch(events=map(message_of, events), include_gauges=True)
        if self._random.randrange(5) == 0:
            return await self._in_a_call(batch)
        if self._random.randrange(6) == 0:
            await self._end()
        repeated = False
        while True:
            outcome = await self._in_the_stream(batch)
            if outcome is not None:
                return outcome, repeated
            self._stream, repeated = None, True
            await asyncio.sleep(RETRY_DELAY)

    async def _in_a_call(self, batch: usage_pb2.UsageBatch) -> tuple[Outcome, bool]:
        request = alert_service_pb2.EvaluateUsageBatchRequest(batch=batch)
        tries = 0

        def make(
            caller: Caller,
        ) -> grpc.aio.UnaryUnaryCall[
            alert_service_pb2.EvaluateUsageBatchRequest, alert_service_pb2.EvaluateUsageBatchResponse
        ]:
            nonlocal tries
            tries += 1
            return caller.alerts.EvaluateUsageBatch(request, metadata=caller.metadata, timeout=DEADLINE)

        answer = await self._servers.call(self._random, make)
        return answer.outcome, tries > 1

    async def _in_the_stream(self, batch: usage_pb2.UsageBatch) -> Outcome | None:
        """The outcome; None when the stream ended before."""
        if self._stream is None:
            self._number = (self._number + 1) % REPLICAS
            self._stream = self._servers.caller(self._number).stream()
        try:
            async with asyncio.timeout(DEADLINE):
                await self._stream.write(alert_service_pb2.EvaluateUsageRequest(batch=batch))
                while isinstance(answer := await self._stream.read(), Response):
                    if answer.HasField("outcome"):
                        return answer.outcome
        except grpc.aio.AioRpcError as error:
            # A write into a stream that has ended may lose the status: `outage.py` has the cause.
            if error.code() not in RETRIED and error.details() != STATUS_LOST:
                raise
        except asyncio.InvalidStateError:
            pass  # the server ended the stream before the write
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            # The channel to a server that has stopped was closed.
        return None

    async def _end(self) -> None:
        """Ends the stream; the next one goes to the other server."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            await stream.done_writing()
            async with asyncio.timeout(DEADLINE):
                while isinstance(await stream.read(), Response):
                    pass
        except asyncio.InvalidStateError:
            pass  # the server has ended the stream
        except asyncio.CancelledError:
            if is_cancelled():
                raise
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRIED:
                raise

    def cut(self) -> None:
        """Cuts off the stream."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
