"""Deliveries, attempts, jobs and operator events as messages of the contract, and the filters of their lists."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from google.protobuf.duration_pb2 import Duration

from generated.tidemark.v1 import (
    delivery_pb2,
    operator_event_pb2,
    redelivery_job_pb2,
)
from generated.tidemark.v1.webhook_service_pb2 import ListDeliveriesRequest
from server.calls.validation import Violations, to_timestamp
from server.mapping.event_type_numbers import NUMBERS
from server.mapping.event_types import read_event_types
from store.deliveries.deliveries import Attempt, Delivery, DeliveryFilter
from store.deliveries.operator_event_log import LoggedEvent
from store.deliveries.redelivery_jobs import RedeliveryJob
from webhooks.deliveries import DeliveryStatus

_STATUS_NUMBERS = {
    status: delivery_pb2.DeliveryStatus.Value(f"DELIVERY_STATUS_{status}") for status in DeliveryStatus
}
_STATUSES: Mapping[int, DeliveryStatus] = {number: status for status, number in _STATUS_NUMBERS.items()}


def read_statuses(
    violations: Violations, statuses: Sequence[delivery_pb2.DeliveryStatus.ValueType]
) -> tuple[DeliveryStatus, ...]:
    """A filter by statuses, each once."""
    for index, number in enumerate(statuses):
        if number not in _STATUSES:
            violations.add(f"statuses[{index}]", f"{number} is no status of a delivery")
    return tuple(dict.fromkeys(_STATUSES[number] for number in statuses if number in _STATUSES))


def read_filter(violations: Violations, request: ListDeliveriesRequest) -> DeliveryFilter:
    """Which deliveries a list is narrowed to."""
    has_start, has_end = request.HasField("start_time"), request.HasField("end_time")
    return DeliveryFilter(
        endpoint_id=violations.identifier("endpoint_id", request.endpoint_id, required=False) or None,
        notification_id=violations.identifier("notification_id", request.notification_id, required=False) or None,
        statuses=read_statuses(violations, request.statuses),
        customer_id=violations.identifier("customer_id", request.customer_id, required=False) or None,
        event_types=read_event_types(violations, "event_types", request.event_types),
        start_time=violations.time("start_time", request.start_time) if has_start else None,
        end_time=violations.time("end_time", request.end_time) if has_end else None,
    )


def canonical(filter_: DeliveryFilter) -> tuple[str, ...]:
    """The filter as texts that are equal for equal filters, in whatever order their values are."""
    return tuple(
        ",".join(sorted(value)) if isinstance(value, tuple) else "" if value is None else str(value)
        for value in (getattr(filter_, field.name) for field in fields(filter_))
    )


def delivery_message(delivery: Delivery) -> delivery_pb2.Delivery:
    """A delivery."""
    message = delivery_pb2.Delivery(
        delivery_id=delivery.delivery_id,
        endpoint_id=delivery.endpoint_id,
        notification_id=delivery.notification_id,
        customer_id=delivery.customer_id,
        event_type=NUMBERS[delivery.event_type],
        status=_STATUS_NUMBERS[delivery.status],
        trigger=delivery_pb2.DeliveryTrigger.Value(f"DELIVERY_TRIGGER_{delivery.trigger}"),
        attempt_count=delivery.attempt_count,
        create_time=to_timestamp(delivery.create_time),
    )
    if delivery.next_attempt_time is not None:
        message.next_attempt_time.CopyFrom(to_timestamp(delivery.next_attempt_time))
    if delivery.finish_time is not None:
        message.finish_time.CopyFrom(to_timestamp(delivery.finish_time))
    return message


def attempt_message(attempt: Attempt) -> delivery_pb2.Attempt:
    """An attempt."""
    duration = Duration()
    duration.FromTimedelta(attempt.duration)
    return delivery_pb2.Attempt(
        attempt_number=attempt.attempt_number,
        trigger=delivery_pb2.DeliveryTrigger.Value(f"DELIVERY_TRIGGER_{attempt.trigger}"),
        start_time=to_timestamp(attempt.start_time),
        duration=duration,
        outcome=delivery_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{attempt.outcome}"),
        http_status=attempt.http_status,
        remote_address=attempt.remote_address,
        signing_key_sequences=attempt.secret_sequences,
        response_excerpt=attempt.response_excerpt,
        error=attempt.error,
    )


def job_message(job: RedeliveryJob) -> redelivery_job_pb2.RedeliveryJob:
    """A job that sends something again."""
    message = redelivery_job_pb2.RedeliveryJob(
        job_id=job.job_id,
        endpoint_id=job.endpoint_id,
        kind=redelivery_job_pb2.RedeliveryKind.Value(f"REDELIVERY_KIND_{job.kind}"),
        state=redelivery_job_pb2.RedeliveryState.Value(f"REDELIVERY_STATE_{job.state}"),
        start_time=to_timestamp(job.start_time),
        end_time=to_timestamp(job.end_time),
        examined_count=job.examined_count,
        redelivered_count=job.redelivered_count,
        create_time=to_timestamp(job.create_time),
    )
    if job.finish_time is not None:
        message.finish_time.CopyFrom(to_timestamp(job.finish_time))
    return message


def event_message(event: LoggedEvent) -> operator_event_pb2.OperatorEvent:
    """An operator event."""
    return operator_event_pb2.OperatorEvent(
        event_id=event.event_id,
        event_type=NUMBERS[event.event_type],
        endpoint_id=event.endpoint_id,
        create_time=to_timestamp(event.create_time),
        body=event.body,
    )
