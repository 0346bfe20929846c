"""API errors that more than one service answers."""

from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import AlreadyExists, FailedPrecondition, NotFound
from store.erasures.jobs import CustomerBeingErased, CustomerUnknown
from store.identity.idempotent_answers import RequestIdReused


def customer_not_found(name: str, field: str = "customer_id") -> NotFound:
    """The organization has no such customer. field: of the request, which names the customer."""
    if field == "customer_id":
        message = f"customer {name!r} not found: create it with PutCustomer, or send usage for it first"
    else:
        message = f"no customer with the {field} {name!r} found: give it to a customer with PutCustomer"
    return NotFound(error_reason_pb2.ERROR_REASON_CUSTOMER_NOT_FOUND, message, metadata={field: name})


def customer_unknown(error: CustomerUnknown) -> NotFound:
    """The organization has no such customer."""
    return customer_not_found(error.customer_id)


def customer_being_erased(error: CustomerBeingErased) -> FailedPrecondition:
    """The customer takes no facts and no alerts until its erasure is done."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_CUSTOMER_BEING_ERASED,
        f"the customer {error.customer_id!r} is being erased: send this for a new customer of that id when the"
        " erasure is done",
        metadata={"customer_id": error.customer_id},
    )


def request_id_reused(error: RequestIdReused) -> AlreadyExists:
    """The request id belongs to an earlier request with other content."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED,
        f"the request id {error.request_id!r} was used for another request: use a new id",
        metadata={"request_id": error.request_id},
    )
