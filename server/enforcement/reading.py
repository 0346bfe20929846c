"""The reading of the requests of LimitService: messages of the contract become requests of the engine."""

from dataclasses import dataclass

from engine.enforcement.requests import Extend, Release, Request, Reserve, Settle
from evaluator.enforcement.decisions import OveragePolicy
from evaluator.enforcement.usage import Usage
from generated.tidemark.v1 import limit_service_pb2 as messages
from server.calls.validation import Violations
from server.mapping.decisions import read_policy
from server.mapping.requested_usage import UsageBounds, read_amount, read_usage
from server.mapping.reservations import read_expiry


@dataclass(frozen=True, slots=True)
class Check:
    """A check: a decision without an effect."""

    usage: Usage
    policy: OveragePolicy = OveragePolicy.DEFAULT


# path: begins the path of each field of the request, such as "requests[3].reserve."; empty in a call of its own.


def read_check(
    violations: Violations, sent: messages.CheckUsageRequest, bounds: UsageBounds, path: str = ""
) -> Check:
    """What a request checks."""
    return Check(
        _read_usage(violations, sent, bounds, path),
        read_policy(violations, f"{path}overage_policy", sent.overage_policy),
    )


def read_reserve(
    violations: Violations, sent: messages.ReserveUsageRequest, bounds: UsageBounds, path: str = ""
) -> Reserve:
    """What a request reserves."""
    expire_time, ttl = read_expiry(violations, path, sent, bounds.now)
    return Reserve(
        violations.identifier(f"{path}reservation_id", sent.reservation_id),
        _read_usage(violations, sent, bounds, path),
        read_policy(violations, f"{path}overage_policy", sent.overage_policy),
        expire_time,
        ttl,
    )


def read_settle(violations: Violations, sent: messages.SettleReservationRequest, path: str = "") -> Settle:
    """What a request settles."""
    return Settle(
        violations.identifier(f"{path}customer_id", sent.customer_id),
        violations.identifier(f"{path}reservation_id", sent.reservation_id),
        read_amount(violations, f"{path}quantity", sent.quantity) if sent.quantity else None,
        read_amount(violations, f"{path}cost", sent.cost) if sent.cost else None,
    )


def read_release(violations: Violations, sent: messages.ReleaseReservationRequest, path: str = "") -> Release:
    """What a request releases."""
    return Release(
        violations.identifier(f"{path}customer_id", sent.customer_id),
        violations.identifier(f"{path}reservation_id", sent.reservation_id),
    )


def read_extend(
    violations: Violations, sent: messages.ExtendReservationRequest, bounds: UsageBounds, path: str = ""
) -> Extend:
    """What a request extends."""
    expire_time, ttl = read_expiry(violations, path, sent, bounds.now)
    return Extend(
        violations.identifier(f"{path}customer_id", sent.customer_id),
        violations.identifier(f"{path}reservation_id", sent.reservation_id),
        expire_time,
        ttl,
    )


def read_item(
    violations: Violations, sent: messages.EnforcementRequest, bounds: UsageBounds, path: str
) -> Request | Check | None:
    """A request of a stream; None if it has none. path: of the request."""
    match sent.WhichOneof("request"):
        case "reserve":
            return read_reserve(violations, sent.reserve, bounds, f"{path}.reserve.")
        case "settle":
            return read_settle(violations, sent.settle, f"{path}.settle.")
        case "release":
            return read_release(violations, sent.release, f"{path}.release.")
        case "extend":
            return read_extend(violations, sent.extend, bounds, f"{path}.extend.")
        case "check":
            return read_check(violations, sent.check, bounds, f"{path}.check.")
    violations.add(f"{path}.request", "one of reserve, settle, release, extend and check is required")
    return None


def _read_usage(
    violations: Violations,
    sent: messages.CheckUsageRequest | messages.ReserveUsageRequest,
    bounds: UsageBounds,
    path: str,
) -> Usage:
    if not sent.HasField("usage"):
        violations.add(f"{path}usage", "it is required")
    return read_usage(violations, f"{path}usage", sent.usage, bounds)
