"""The vocabulary of deliveries: their status, why they are attempted, and how attempts end."""

from enum import StrEnum


class DeliveryStatus(StrEnum):
    """The status of a delivery."""

    PENDING = "PENDING"  # waits for its next attempt, or is being attempted now
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"  # the retry schedule has ended
    CANCELLED = "CANCELLED"  # the endpoint was deleted or disabled


class Trigger(StrEnum):
    """Why a delivery is attempted."""

    AUTOMATIC = "AUTOMATIC"  # by the fan-out of its notification, and by the retry schedule
    MANUAL = "MANUAL"  # a caller asked for this delivery
    RECOVERY = "RECOVERY"  # a redelivery job covers it
    TEST = "TEST"  # it carries a test event


class AttemptOutcome(StrEnum):
    """How an attempt ended: with a kind of answer, or at a phase before the answer."""

    DELIVERED = "DELIVERED"  # 200 to 299
    REDIRECTED = "REDIRECTED"  # 3xx; redirects are never followed
    REJECTED = "REJECTED"  # 4xx other than the two below
    THROTTLED = "THROTTLED"  # 429
    GONE = "GONE"  # 410
    SERVER_ERROR = "SERVER_ERROR"  # 5xx, or a number that is not an HTTP status
    ADDRESS_REFUSED = "ADDRESS_REFUSED"  # the URL policy refuses the address behind the name
    NAME_NOT_RESOLVED = "NAME_NOT_RESOLVED"
    CONNECTION_FAILED = "CONNECTION_FAILED"  # refused, or no route
    CONNECTION_TIMED_OUT = "CONNECTION_TIMED_OUT"
    TLS_FAILED = "TLS_FAILED"
    CONNECTION_LOST = "CONNECTION_LOST"  # after the connection was made, before the headers of the answer
    RESPONSE_TIMED_OUT = "RESPONSE_TIMED_OUT"
    RESPONSE_MALFORMED = "RESPONSE_MALFORMED"  # the answer is not HTTP
