"""Usage events as messages."""

from evaluator.amounts import format_decimal
from evaluator.events import UsageEvent
from generated.tidemark.v1 import usage_pb2
from server.calls.validation import to_timestamp


def event_message(event: UsageEvent) -> usage_pb2.UsageEvent:
    """The message for a stored event."""
    return usage_pb2.UsageEvent(
        event_id=event.event_id,
        customer_id=event.customer_id,
        subscription_id=event.subscription_id or "",
        metric_id=event.metric_id,
        quantity=format_decimal(event.quantity),
        cost="" if event.cost is None else format_decimal(event.cost),
        currency=event.currency or "",
        event_time=to_timestamp(event.event_time),
        properties=event.properties,
        event_name=event.event_name or "",
    )
