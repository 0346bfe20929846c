"""The words for deliveries: how far one has come, why it is attempted, how an attempt ended."""

from enum import StrEnum


class DeliveryStatus(StrEnum):
    """How far a delivery has come."""

    PENDING = "PENDING"  # waits for its next attempt, or is being attempted
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"  # the schedule of attempts is used up
    CANCELLED = "CANCELLED"  # the endpoint was deleted, or said that it is gone


class Trigger(StrEnum):
    """Why a delivery is attempted."""

    AUTOMATIC = "AUTOMATIC"  # its notification was made, and the schedule goes on
    MANUAL = "MANUAL"  # somebody asked for this one
    RECOVERY = "RECOVERY"  # a job covers it
    TEST = "TEST"  # it carries a test event


class Outcome(StrEnum):
    """How an attempt ended: with an answer of some kind, or at some phase before one."""

    DELIVERED = "DELIVERED"  # 200 to 299
    REDIRECTED = "REDIRECTED"  # 3xx; redirects are never followed
    REJECTED = "REJECTED"  # 4xx other than the two below
    THROTTLED = "THROTTLED"  # 429
    GONE = "GONE"  # 410
    SERVER_ERROR = "SERVER_ERROR"  # 5xx, or a number that is no HTTP status
    ADDRESS_REFUSED = "ADDRESS_REFUSED"  # the name leads to an address that webhooks may not go to
    NAME_NOT_RESOLVED = "NAME_NOT_RESOLVED"
    CONNECTION_FAILED = "CONNECTION_FAILED"  # refused, or no route
    CONNECTION_TIMED_OUT = "CONNECTION_TIMED_OUT"
    TLS_FAILED = "TLS_FAILED"
    CONNECTION_LOST = "CONNECTION_LOST"  # after it was made, before the answer's headers
    RESPONSE_TIMED_OUT = "RESPONSE_TIMED_OUT"
    RESPONSE_MALFORMED = "RESPONSE_MALFORMED"  # what came back is not HTTP
