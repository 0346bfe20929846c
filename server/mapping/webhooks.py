"""Endpoints, deliveries and attempts as messages of the contract, and the checks of what callers send."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from evaluator.notifications import EVENT_TYPES
from generated.tidemark.v1 import webhook_pb2
from runtime.targets import TargetPolicy, TargetRefused
from server.validation import Violations, to_timestamp
from store.deliveries import Attempt, Delivery, DeliveryStatus
from store.endpoints import Endpoint


def read_url(violations: Violations, url: str, policy: TargetPolicy) -> str:
    """The URL of a new endpoint, which has to be one that webhooks may go to."""
    try:
        policy.check_url(url)
    except TargetRefused as error:
        violations.add("url", f"it {error}")
    return url


def read_event_types(violations: Violations, event_types: Sequence[str]) -> tuple[str, ...]:
    """The event types that an endpoint asks for, each once; empty for all."""
    for index, event_type in enumerate(event_types):
        if event_type not in EVENT_TYPES:
            violations.add(f"event_types[{index}]", f"there is no such type; there are {', '.join(EVENT_TYPES)}")
    return tuple(dict.fromkeys(event_types))


def read_status(violations: Violations, status: webhook_pb2.DeliveryStatus.ValueType) -> DeliveryStatus | None:
    """The status that a list is narrowed to; None for every one."""
    if status == webhook_pb2.DELIVERY_STATUS_UNSPECIFIED:
        return None
    try:
        name = webhook_pb2.DeliveryStatus.Name(status)
    except ValueError:
        violations.add("status", f"there is no status {status}")
        return None
    return DeliveryStatus(name.removeprefix("DELIVERY_STATUS_"))


def endpoint_message(endpoint: Endpoint) -> webhook_pb2.Endpoint:
    """An endpoint, without its secrets."""
    return webhook_pb2.Endpoint(
        endpoint_id=endpoint.endpoint_id,
        url=endpoint.url,
        description=endpoint.description,
        event_types=endpoint.event_types,
        state=webhook_pb2.EndpointState.Value(f"ENDPOINT_STATE_{endpoint.state}"),
        create_time=to_timestamp(endpoint.create_time),
    )


def delivery_message(delivery: Delivery) -> webhook_pb2.Delivery:
    """A delivery."""
    message = webhook_pb2.Delivery(
        delivery_id=delivery.delivery_id,
        endpoint_id=delivery.endpoint_id,
        notification_id=delivery.notification_id,
        customer_id=delivery.customer_id,
        event_type=delivery.event_type,
        status=webhook_pb2.DeliveryStatus.Value(f"DELIVERY_STATUS_{delivery.status}"),
        attempt_count=delivery.attempt_count,
        create_time=to_timestamp(delivery.create_time),
    )
    if delivery.next_attempt_time is not None:
        message.next_attempt_time.CopyFrom(to_timestamp(delivery.next_attempt_time))
    if delivery.finish_time is not None:
        message.finish_time.CopyFrom(to_timestamp(delivery.finish_time))
    return message


def attempt_message(attempt: Attempt) -> webhook_pb2.Attempt:
    """An attempt."""
    duration = Duration()
    duration.FromTimedelta(attempt.duration)
    return webhook_pb2.Attempt(
        attempt_number=attempt.attempt_number,
        start_time=to_timestamp(attempt.start_time),
        duration=duration,
        outcome=webhook_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{attempt.outcome}"),
        http_status=attempt.http_status,
        response_excerpt=attempt.response_excerpt,
        error=attempt.error,
    )
