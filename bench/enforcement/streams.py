"""Pairs of a reservation and its settlement on one stream."""

import asyncio
import time
from dataclasses import dataclass, field

import grpc

from bench.enforcement.requests import SERVICE, customers_of, pair
from bench.support.access import Access
from bench.support.client import Job
from bench.support.sending import NotCounted, close_channels
from generated.tidemark.v1.decision_pb2 import DECISION_OUTCOME_ALLOWED
from generated.tidemark.v1.limit_service_pb2 import EnforceUsageResponse

DECISIONS = 50  # of one message
IN_FLIGHT = 40  # messages that are sent and not yet answered

_Call = grpc.aio.StreamStreamCall[bytes, EnforceUsageResponse]


@dataclass(frozen=True)
class Decided:
    """The result of a round. pairs: settled. reserved, settled: ids that were acknowledged, where they are noted."""

    seconds: float
    pairs: int
    reserved: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()


@dataclass
class Pairs(Job[Decided]):
    """Reserves and settles as fast as the server decides; a reservation is settled after its answer has come.

    messages: of each kind. seconds: after this time no further reservation is sent. notes: whether ids are noted, and
    the end of the server ends the round.
    """

    access: Access
    name: str
    customers: int
    messages: int
    seconds: float
    notes: bool = False
    _pairs: list[tuple[bytes, bytes]] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        self._pairs = [
            pair(f"{self.name}-{number:05d}", customers_of(number, DECISIONS, self.customers))
            for number in range(self.messages)
        ]
        self._channels = await self.access.channels(1)

    async def run(self) -> Decided:
        """Sends; the measured time ends with the last answer."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, EnforceUsageResponse] = self._channels[0].stream_stream(
            f"{SERVICE}EnforceUsage", None, EnforceUsageResponse.FromString
        )
        call = method(metadata=self.access.metadata)
        started = time.perf_counter()
        reserved, settled, pairs = set[str](), set[str](), 0
        unsent = iter(self._pairs)
        waiting: dict[str, bytes | None] = {}  # by batch: the settlements to be sent after its answer

        async def send() -> None:
            if time.perf_counter() - started > self.seconds or (found := next(unsent, None)) is None:
                return
            reserves, settles = found
            waiting[_batch_id(reserves)] = settles
            await call.write(reserves)

        try:
            for _ in range(IN_FLIGHT):
                await send()
            while waiting:
                response = await call.read()
                if not isinstance(response, EnforceUsageResponse):
                    break
                if response.heartbeat:
                    continue
                settles = waiting.pop(response.batch_id)
                ids = reserved if settles else settled
                for one in response.results:
                    answer = one.reserve if settles else one.settle
                    if answer.decision.outcome != DECISION_OUTCOME_ALLOWED:
                        raise NotCounted(str(one)[:2_000])
                    if self.notes:
                        ids.add(answer.reservation.reservation_id)
                if settles:
                    waiting[_batch_id(settles)] = None
                    await call.write(settles)
                else:
                    pairs += len(response.results)
                    await send()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if not self.notes:
                raise
        seconds = time.perf_counter() - started
        call.cancel()
        await close_channels(self._channels)
        return Decided(seconds, pairs, frozenset(reserved), frozenset(settled))


def _batch_id(message: bytes) -> str:
    """The first field of an encoded message."""
    return message[2 : 2 + message[1]].decode()
