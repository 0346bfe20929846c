"""Reservations as messages of the contract, and the checks of what callers send about them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from evaluator.amounts import format_decimal
from evaluator.enforcement.decisions import OveragePolicy
from evaluator.enforcement.reservations import LONGEST_TTL, Reservation, ReservationState
from generated.tidemark.v1 import limit_service_pb2, reservation_pb2
from server.calls.validation import Violations, shared_timestamp
from server.mapping.decisions import OUTCOMES, POLICIES
from server.mapping.requested_usage import write_usage

STATES = {
    ReservationState.OPEN: reservation_pb2.RESERVATION_STATE_OPEN,
    ReservationState.SETTLED: reservation_pb2.RESERVATION_STATE_SETTLED,
    ReservationState.RELEASED: reservation_pb2.RESERVATION_STATE_RELEASED,
    ReservationState.EXPIRED: reservation_pb2.RESERVATION_STATE_EXPIRED,
    ReservationState.DENIED: reservation_pb2.RESERVATION_STATE_DENIED,
}
_STATE_OF = {number: state for state, number in STATES.items()}

_HOURS = LONGEST_TTL // timedelta(hours=1)
_SECONDS = LONGEST_TTL // timedelta(seconds=1)


def read_expiry(
    violations: Violations,
    path: str,
    sent: limit_service_pb2.ReserveUsageRequest | limit_service_pb2.ExtendReservationRequest,
    now: datetime,
) -> tuple[datetime | None, timedelta | None]:
    """expire_time and ttl; at most one of them is set.

    A time that has passed is accepted here, because the same request may have been accepted before. The engine
    refuses it for a new reservation.
    """
    if sent.HasField("expire_time"):
        time = violations.time(f"{path}expire_time", sent.expire_time)
        if time > now + LONGEST_TTL:
            violations.add(f"{path}expire_time", f"it is more than {_HOURS} hours ahead")
        return time, None
    if not sent.HasField("ttl"):
        return None, None
    seconds, nanos = sent.ttl.seconds, sent.ttl.nanos
    if not (0 <= seconds <= _SECONDS and 0 <= nanos < 1_000_000_000 and (0, 0) < (seconds, nanos) <= (_SECONDS, 0)):
        violations.add(f"{path}ttl", f"give more than 0 seconds, and at most {_HOURS} hours")
        return None, None
    # Rounded up, so that it stays more than 0.
    return None, timedelta(seconds=seconds, microseconds=-(-nanos // 1000))


def read_states(
    violations: Violations, path: str, sent: Sequence[reservation_pb2.ReservationState.ValueType]
) -> tuple[ReservationState, ...]:
    """The states of a filter, each once, in an order of their own."""
    found = set()
    for index, number in enumerate(sent):
        state = _STATE_OF.get(number)
        if state is None:
            violations.add(f"{path}[{index}]", f"{number} is not a state of a reservation")
        else:
            found.add(state)
    return tuple(sorted(found))


def reservation_message(one: Reservation) -> reservation_pb2.Reservation:
    """The message for a reservation."""
    shown = reservation_pb2.Reservation()
    write_reservation(shown, one)
    return shown


def write_reservation(shown: reservation_pb2.Reservation, one: Reservation, *, with_usage: bool = True) -> None:
    """Fills in the message for a reservation, which may be a part of another one.

    Field by field: a constructor with the fields as arguments takes several times as long.
    """
    shown.customer_id = one.usage.customer_id
    shown.reservation_id = one.reservation_id
    shown.state = STATES[one.state]
    if one.policy is not OveragePolicy.DEFAULT:
        shown.overage_policy = POLICIES[one.policy]
    shown.outcome = OUTCOMES[one.outcome]
    shown.granted_quantity = format_decimal(one.granted_quantity)
    if one.late:
        shown.late = True
    shown.create_time.CopyFrom(shared_timestamp(one.create_time))
    shown.expire_time.CopyFrom(shared_timestamp(one.expire_time))
    if with_usage:
        write_usage(shown.usage, one.usage)
    if one.granted_cost is not None:
        shown.granted_cost = format_decimal(one.granted_cost)
    if one.settled_quantity is not None:
        shown.settled_quantity = format_decimal(one.settled_quantity)
    if one.settled_cost is not None:
        shown.settled_cost = format_decimal(one.settled_cost)
    if one.end_time is not None:
        shown.end_time.CopyFrom(shared_timestamp(one.end_time))
