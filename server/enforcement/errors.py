"""The API errors of LimitService, and the table of the domain's exceptions that they answer."""

from collections.abc import Callable
from typing import Any

from engine.enforcement.requests import (
    CustomerBeingErased,
    EventConflict,
    ExpireTimePassed,
    ReservationConflict,
    ReservationEnded,
    ReservationNotFound,
    ReservationWithoutCost,
    UnrecordableRequest,
    UsageTooOld,
)
from engine.ingest.pending import Overloaded
from generated.tidemark.v1 import error_reason_pb2, reservation_pb2
from server.alerts.errors import overloaded
from server.calls.errors import (
    AlreadyExists,
    ApiError,
    ErrorTable,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
)
from server.calls.shared_errors import quota_reached
from server.mapping.reservations import STATES
from store.identity.quotas import QuotaReached


def error_table() -> ErrorTable:
    """The API error for each exception that the handlers of LimitService let pass."""
    table: dict[type[Exception], Callable[[Any], ApiError]] = {
        ReservationNotFound: reservation_not_found,
        ReservationConflict: reservation_conflict,
        ReservationEnded: reservation_ended,
        ReservationWithoutCost: reservation_without_cost,
        EventConflict: event_conflict,
        CustomerBeingErased: customer_being_erased,
        UsageTooOld: usage_too_old,
        ExpireTimePassed: expire_time_passed,
        UnrecordableRequest: unrecordable_request,
        Overloaded: overloaded,
        QuotaReached: quota_reached,
    }
    return table


def reservation_not_found(error: ReservationNotFound) -> NotFound:
    """The customer has no such reservation."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_RESERVATION_NOT_FOUND,
        f"the customer {error.customer_id!r} has no reservation {error.reservation_id!r}: there was none, or it ended"
        " more than 7 days ago",
        metadata={"customer_id": error.customer_id, "reservation_id": error.reservation_id},
    )


def reservation_conflict(error: ReservationConflict) -> AlreadyExists:
    """The customer has another reservation of that id."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_RESERVATION_CONFLICT,
        f"the customer {error.customer_id!r} has a reservation {error.reservation_id!r} with other content: repeat a"
        " request unchanged, and use another reservation_id for another one",
        metadata={"customer_id": error.customer_id, "reservation_id": error.reservation_id},
    )


def reservation_ended(error: ReservationEnded) -> FailedPrecondition:
    """The reservation is not open any more."""
    state = reservation_pb2.ReservationState.Name(STATES[error.state])
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_RESERVATION_ENDED,
        f"the reservation {error.reservation_id!r} of {error.customer_id!r} cannot change: it has ended ({state})",
        metadata={"customer_id": error.customer_id, "reservation_id": error.reservation_id, "state": state},
    )


def reservation_without_cost(error: ReservationWithoutCost) -> FailedPrecondition:
    """The settlement has a cost, and the currency of it is not known."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_RESERVATION_WITHOUT_COST,
        f"the reservation {error.reservation_id!r} of {error.customer_id!r} has no cost, so no currency: settle it"
        " without a cost, and reserve with the cost that is expected",
        metadata={"customer_id": error.customer_id, "reservation_id": error.reservation_id},
    )


def event_conflict(error: EventConflict) -> AlreadyExists:
    """The customer has an event with the id of the reservation, which is to become the id of its event."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_EVENT_CONFLICT,
        f"an event with the id {error.event_id!r} is counted for this customer in this calendar month (UTC): use a"
        " reservation_id that is not the id of an event",
        metadata={"event_id": error.event_id, "customer_id": error.customer_id},
    )


def customer_being_erased(error: CustomerBeingErased) -> FailedPrecondition:
    """The customer takes no usage until its erasure is done."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_CUSTOMER_BEING_ERASED,
        f"the customer {error.customer_id!r} is being erased: ask for usage of a new customer of that id when it"
        " is done",
        metadata={"customer_id": error.customer_id},
    )


def usage_too_old(error: UsageTooOld) -> FailedPrecondition:
    """The usage cannot be counted any more."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_EVENT_TOO_OLD,
        f"event_time: {error.event_time.isoformat()} lies in a billing period that is closed and whose grace is over",
        metadata={"customer_id": error.customer_id},
    )


def expire_time_passed(error: ExpireTimePassed) -> InvalidArgument:
    """The reservation would have expired before it is made."""
    problem = (
        f"{error.expire_time.isoformat()} is not ahead of {error.now.isoformat()}, the time of the service: give a"
        " later time, or ttl"
    )
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_INVALID_FIELD,
        f"expire_time: {problem}",
        violations=[FieldViolation("expire_time", problem)],
    )


def unrecordable_request(error: UnrecordableRequest) -> Internal:
    """The service failed to record what the request changes."""
    return Internal(
        error_reason_pb2.ERROR_REASON_INTERNAL,
        "the service failed to record this request, and nothing of it is stored: send it again later",
        metadata={"customer_id": error.customer_id},
    )
