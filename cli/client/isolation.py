"""Finds the events of a batch that a server fails over, by sending the batch in ever smaller pieces."""

from collections.abc import Sequence

import grpc
from google.rpc import status_pb2

from cli.client.connection import Metadata, error_status
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest, EvaluateUsageResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import Rejection, UsageEvent

# How a server says that it failed itself, rather than that it cannot be reached.
FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
MAX_REJECTED = 20  # events that fail alone before any piece is taken: then it is the server, and not the events


class Isolation:
    """Sends one batch piece by piece. sent: events that were sent, some of them several times.

    Pieces go in the order of the events. What a piece was acknowledged for stays counted when a later one fails, and
    shows as duplicates when the batch is sent again.
    """

    def __init__(
        self, stub: AlertServiceStub, metadata: Metadata, batch_id: str, include_gauges: bool, timeout: float
    ) -> None:
        self._stub = stub
        self._metadata = metadata
        self._batch_id = batch_id
        self._include_gauges = include_gauges
        self._timeout = timeout
        self._taken = 0  # pieces
        self.sent = 0

    async def settle(self, events: Sequence[UsageEvent]) -> EvaluateUsageResponse:
        """The answer to all the events, with a rejection for each that the server failed over alone.

        Raises AioRpcError when the server cannot be reached, or takes none of the first events.
        """
        whole = EvaluateUsageResponse(batch_id=self._batch_id)
        waiting = [(0, len(events))]  # pieces, the next one last
        while waiting:
            start, end = waiting.pop()
            try:
                answer = await self._send(events[start:end])
            except grpc.aio.AioRpcError as error:
                if error.code() not in FAULTS or (not self._taken and len(whole.rejected) >= MAX_REJECTED):
                    raise
                if end - start > 1:
                    middle = (start + end) // 2
                    waiting += [(middle, end), (start, middle)]
                    continue
                whole.rejected.append(Rejection(index=start, status=_status(error)))
                continue
            self._taken += 1
            _add(whole, answer, start)
        return whole

    async def _send(self, events: Sequence[UsageEvent]) -> EvaluateUsageResponse:
        self.sent += len(events)
        answer = await self._stub.EvaluateUsageBatch(
            EvaluateUsageBatchRequest(batch_id=self._batch_id, events=events, include_gauges=self._include_gauges),
            metadata=self._metadata,
            timeout=self._timeout,
        )
        return EvaluateUsageResponse(
            accepted=answer.accepted,
            duplicates=answer.duplicates,
            rejected=answer.rejected,
            transitions=answer.transitions,
            gauges=answer.gauges,
            omitted=answer.omitted if answer.HasField("omitted") else None,
        )


def _add(whole: EvaluateUsageResponse, answer: EvaluateUsageResponse, start: int) -> None:
    whole.accepted += answer.accepted
    whole.duplicates += answer.duplicates
    whole.rejected.extend(Rejection(index=start + one.index, status=one.status) for one in answer.rejected)
    whole.transitions.extend(answer.transitions)
    whole.gauges.extend(answer.gauges)
    if answer.HasField("omitted"):
        if not whole.omitted.HasField("ingest_time"):
            whole.omitted.ingest_time.CopyFrom(answer.omitted.ingest_time)
        whole.omitted.transition_count += answer.omitted.transition_count
        whole.omitted.gauge_count += answer.omitted.gauge_count
        whole.omitted.rejection_count += answer.omitted.rejection_count


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    status = error_status(error)
    if not status.code:
        status.code = error.code().value[0]
        status.message = error.details() or error.code().name
    return status
