"""The two methods that count usage, with requests that are encoded already."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.usage.batches import AnswerOptions, request
from tidemark_client.v1.alert_service_pb2 import EvaluateUsageBatchResponse, EvaluateUsageResponse
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

BATCH_TIMEOUT = 30.0  # seconds

_SERVICE = "/tidemark.v1.AlertService/"


class UsageMethods:
    """EvaluateUsage and EvaluateUsageBatch over one channel. options: what answers contain."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata = (), options: AnswerOptions | None = None
    ) -> None:
        self.options = options or AnswerOptions()
        self._metadata = metadata
        self._stream: grpc.aio.StreamStreamMultiCallable[bytes, EvaluateUsageResponse] = channel.stream_stream(
            f"{_SERVICE}EvaluateUsage", None, EvaluateUsageResponse.FromString
        )
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, EvaluateUsageBatchResponse] = channel.unary_unary(
            f"{_SERVICE}EvaluateUsageBatch", None, EvaluateUsageBatchResponse.FromString
        )

    def open_stream(self) -> grpc.aio.StreamStreamCall[bytes, EvaluateUsageResponse]:
        """A new stream."""
        return self._stream(metadata=self._metadata)

    async def send(self, batch_id: str, events: Sequence[UsageEvent | bytes]) -> UsageOutcome:
        """Sends the events in a unary call. Raises AioRpcError."""
        content = request(batch_id, events, self.options)
        answer = await self._unary(content, metadata=self._metadata, timeout=BATCH_TIMEOUT)
        return answer.outcome
