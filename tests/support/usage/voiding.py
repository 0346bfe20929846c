"""Voiding of usage events, in short calls for tests."""

from collections.abc import Iterable
from datetime import datetime

from generated.tidemark.v1 import alert_service_pb2, usage_void_pb2
from server.calls.validation import to_timestamp
from tests.support.usage.caller import DEADLINE, Caller

VoidResponse = alert_service_pb2.VoidUsageEventsResponse


def key(event_id: str, customer: str = "acme", at: datetime | None = None) -> usage_void_pb2.UsageEventKey:
    """Names a counted event."""
    time = None if at is None else to_timestamp(at)
    return usage_void_pb2.UsageEventKey(customer_id=customer, event_id=event_id, event_time=time)


async def void(
    caller: Caller,
    *events: str | usage_void_pb2.UsageEventKey,
    customer: str = "acme",
    request_id: str = "",
    validate_only: bool = False,
) -> VoidResponse:
    """Voids events, of `customer` where only an id is given."""
    request = alert_service_pb2.VoidUsageEventsRequest(
        events=[key(one, customer) if isinstance(one, str) else one for one in events],
        request_id=request_id,
        validate_only=validate_only,
    )
    return await caller.alerts.VoidUsageEvents(request, metadata=caller.metadata, timeout=DEADLINE)


def outcomes(answer: VoidResponse) -> list[str]:
    """The outcomes of an answer, in short form."""
    return names(answer.outcomes)


def names(outcomes: Iterable[usage_void_pb2.UsageEventVoidOutcome.ValueType]) -> list[str]:
    """Outcomes without their prefix."""
    prefix = "USAGE_EVENT_VOID_OUTCOME_"
    return [usage_void_pb2.UsageEventVoidOutcome.Name(one).removeprefix(prefix) for one in outcomes]
