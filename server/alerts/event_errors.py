"""The API errors of usage events: of their number, and of single ones, each with its index in the request."""

from datetime import datetime

from evaluator.events import UsageEvent
from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import AlreadyExists, ApiError, FailedPrecondition, FieldViolation, Internal, InvalidArgument


def check_number(subject: str, number: int, limit: int) -> None:
    """Raises InvalidArgument for a request without events, or with too many. subject: begins the message."""
    if number == 0:
        raise InvalidArgument(error_reason_pb2.ERROR_REASON_BATCH_EMPTY, f"{subject} none; send 1 or more")
    if number > limit:
        raise InvalidArgument(
            error_reason_pb2.ERROR_REASON_BATCH_TOO_LARGE,
            f"{subject} {number}; send at most {limit}",
            metadata={"events": str(number), "limit": str(limit)},
        )


def invalid(event_id: str, violations: list[FieldViolation]) -> ApiError:
    """An event that breaks the contract; all violations are shown."""
    first = violations[0]
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_EVENT_INVALID,
        f"{first.path}: {first.description}",
        metadata={"event_id": event_id},
        violations=violations,
    )


def too_many_fields(index: int, event_id: str, most: int, properties: int) -> ApiError:
    """An event that was not decoded, because it has more than `most` fields. properties: that an event may have."""
    problem = f"the event has more than {most} fields with them; an event has at most {properties}"
    return invalid(event_id, [FieldViolation(f"batch.events[{index}].properties", problem)])


def in_future(index: int, event_id: str, time: datetime, latest: datetime) -> ApiError:
    """An event whose time is ahead of the service's clock."""
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_EVENT_IN_FUTURE,
        f"batch.events[{index}].event_time: {time.isoformat()} is more than 5 minutes after the time of the service",
        metadata={"event_id": event_id, "latest_time": latest.isoformat()},
    )


def too_old(index: int, event_id: str, why: str) -> ApiError:
    """An event that cannot be counted any more."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_EVENT_TOO_OLD,
        f"batch.events[{index}].event_time: the event is too old to be counted: {why}",
        metadata={"event_id": event_id},
    )


def being_erased(index: int, event: UsageEvent) -> ApiError:
    """An event of a customer that is being erased."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_CUSTOMER_BEING_ERASED,
        f"batch.events[{index}].customer_id: the customer {event.customer_id!r} is being erased: send usage of a new"
        " customer of that id when the erasure is done",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )


def unrecorded(index: int, event: UsageEvent) -> ApiError:
    """An event whose effects the service failed to record."""
    return Internal(
        error_reason_pb2.ERROR_REASON_INTERNAL,
        f"batch.events[{index}]: the service failed to evaluate and did not count this event; send it again later",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )


def conflict(index: int, event: UsageEvent) -> ApiError:
    """An event whose identity is stored with different content."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_EVENT_CONFLICT,
        f"batch.events[{index}].event_id: another event with the id {event.event_id!r} is counted for this"
        " customer in this calendar month (UTC); send a correction under an id of its own",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )
