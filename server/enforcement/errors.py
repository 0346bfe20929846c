"""The API errors of LimitService, and the table of the domain's exceptions that they answer."""

from generated.tidemark.v1 import error_reason_pb2, reservation_pb2
from server.calls.errors import AlreadyExists, FailedPrecondition, NotFound


def reservation_not_found(customer_id: str, reservation_id: str) -> NotFound:
    """The customer has no such reservation."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_RESERVATION_NOT_FOUND,
        f"the customer {customer_id!r} has no reservation {reservation_id!r}: there was none, or it ended more than 7"
        " days ago",
        metadata={"customer_id": customer_id, "reservation_id": reservation_id},
    )


def reservation_conflict(customer_id: str, reservation_id: str) -> AlreadyExists:
    """The customer has another reservation of that id."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_RESERVATION_CONFLICT,
        f"the customer {customer_id!r} has a reservation {reservation_id!r} with other content: repeat a request"
        " unchanged, and use another reservation_id for another one",
        metadata={"customer_id": customer_id, "reservation_id": reservation_id},
    )


def reservation_ended(
    customer_id: str, reservation_id: str, state: reservation_pb2.ReservationState.ValueType
) -> FailedPrecondition:
    """The reservation is not open any more."""
    name = reservation_pb2.ReservationState.Name(state)
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_RESERVATION_ENDED,
        f"the reservation {reservation_id!r} of {customer_id!r} cannot be changed: it has ended ({name})",
        metadata={"customer_id": customer_id, "reservation_id": reservation_id, "state": name},
    )
