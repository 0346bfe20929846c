"""API errors that more than one service answers."""

from datetime import timedelta

from generated.tidemark.v1 import error_reason_pb2
from runtime.quotas import QuotaKind
from server.calls.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    exhausted_by_organization,
)
from store.erasures.jobs import CustomerBeingErased, CustomerUnknown
from store.identity.idempotent_answers import RequestIdReused
from store.identity.quotas import QuotaReached

# What an organization has too much of, and what helps.
_QUOTA_WORDS = {
    QuotaKind.ALERTS: ("alerts that are not archived", "archive some"),
    QuotaKind.ENDPOINTS: ("webhook endpoints", "delete some"),
    QuotaKind.STREAMS: ("open usage streams", "end some, or send more with each of them"),
    QuotaKind.WATCHERS: ("open watch streams", "end some"),
    QuotaKind.EVENTS_PER_SECOND: ("usage events a second", "send this batch again later"),
    QuotaKind.BYTES_PER_SECOND: ("bytes of requests a second", "send this request again later"),
}


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


def quota_reached(error: QuotaReached) -> ResourceExhausted:
    """The organization has as much as its quota allows."""
    what, help_ = _QUOTA_WORDS[error.kind]
    return ResourceExhausted(
        error_reason_pb2.ERROR_REASON_QUOTA_EXCEEDED,
        f"the quota of this organization is {error.limit} {what}: {help_}, or ask the operator for a higher quota",
        metadata={"quota": error.kind.value, "limit": str(error.limit)},
        exhausted=exhausted_by_organization(f"{error.limit} {what}"),
        retry_after=None if error.retry_after is None else timedelta(seconds=error.retry_after),
    )


def malformed_message() -> InvalidArgument:
    """A message that protobuf cannot decode."""
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_MALFORMED_MESSAGE,
        "the message cannot be decoded as the request type of the method",
    )
