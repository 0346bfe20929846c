"""API errors that more than one service answers."""

from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import AlreadyExists, NotFound
from store.identity.idempotent_answers import RequestIdReused


def customer_not_found(customer_id: str) -> NotFound:
    """The organization has no such customer."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_CUSTOMER_NOT_FOUND,
        f"customer {customer_id!r} not found: create it with PutCustomer, or send usage for it first",
        metadata={"customer_id": customer_id},
    )


def request_id_reused(error: RequestIdReused) -> AlreadyExists:
    """The request id belongs to an earlier request with other content."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED,
        f"the request id {error.request_id!r} was used for another request: use a new id",
        metadata={"request_id": error.request_id},
    )
