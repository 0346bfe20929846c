"""Finds the events of a batch with which the server fails, by sending the batch in smaller and smaller parts."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from tidemark_client.errors.status import SERVER_FAULTS, error_status
from tidemark_client.usage.methods import UsageMethods
from tidemark_client.v1.usage_pb2 import Rejection, UsageEvent, UsageOutcome

MAX_REJECTED = 20  # events that fail alone before any part succeeds: then the server fails with every event


class Isolation:
    """Sends one batch in parts. sent: the number of events that were sent; an event counts each time it is sent.

    The parts follow the order of the events. When a later part fails for good, the earlier parts stay counted; their
    events are duplicates when the batch is sent again.
    """

    def __init__(self, methods: UsageMethods, batch_id: str) -> None:
        self._methods = methods
        self._batch_id = batch_id
        self._has_succeeded = False
        self.sent = 0

    async def send(self, events: Sequence[UsageEvent | bytes]) -> UsageOutcome:
        """The answer to all the events; an event with which the server fails alone is rejected in it.

        Raises AioRpcError when the server cannot be reached, or fails with each of the first events.
        """
        whole = UsageOutcome(batch_id=self._batch_id)
        parts = [(0, len(events))]  # start and end of each part that is left; the next part is the last entry
        while parts:
            start, end = parts.pop()
            self.sent += end - start
            try:
                answer = await self._methods.send(self._batch_id, events[start:end])
            except grpc.aio.AioRpcError as error:
                if error.code() not in SERVER_FAULTS:
                    raise
                if not self._has_succeeded and len(whole.rejected) >= MAX_REJECTED:
                    raise
                if end - start > 1:
                    middle = (start + end) // 2
                    parts += [(middle, end), (start, middle)]
                else:
                    whole.rejected.append(Rejection(index=start, status=error_status(error)))
                continue
            self._has_succeeded = True
            _add(whole, answer, start)
        return whole


def _add(whole: UsageOutcome, answer: UsageOutcome, start: int) -> None:
    whole.accepted += answer.accepted
    whole.duplicates += answer.duplicates
    whole.rejected.extend(
        Rejection(index=start + one.index, event_id=one.event_id, status=one.status) for one in answer.rejected
    )
    whole.transitions.extend(answer.transitions)
    whole.gauges.extend(answer.gauges)
    whole.over_limits.extend(answer.over_limits)
    if answer.HasField("omitted"):
        if not whole.omitted.HasField("ingest_time"):
            whole.omitted.ingest_time.CopyFrom(answer.omitted.ingest_time)
        whole.omitted.transition_count += answer.omitted.transition_count
        whole.omitted.gauge_count += answer.omitted.gauge_count
        whole.omitted.rejection_count += answer.omitted.rejection_count
