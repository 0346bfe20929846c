"""The unary call EvaluateUsageBatch, which answers in the same form as the stream EvaluateUsage."""

from collections.abc import Sequence
from dataclasses import dataclass

from cli.client.connection import Metadata
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageBatch, UsageEvent, UsageOutcome

BATCH_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class BatchCall:
    """Sends single batches. include_gauges: whether answers contain the values of the gauges. timeout: seconds."""

    stub: AlertServiceStub
    metadata: Metadata = ()
    include_gauges: bool = False
    timeout: float = BATCH_TIMEOUT

    async def send(self, batch_id: str, events: Sequence[UsageEvent]) -> UsageOutcome:
        """Sends the events in one request. Raises AioRpcError."""
        batch = UsageBatch(batch_id=batch_id, events=events, include_gauges=self.include_gauges)
        answer = await self.stub.EvaluateUsageBatch(
            EvaluateUsageBatchRequest(batch=batch),
            metadata=self.metadata,
            timeout=self.timeout,
        )
        return answer.outcome
