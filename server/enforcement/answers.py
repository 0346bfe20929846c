"""The answers of LimitService: what the engine decided, as messages of the contract, within the size of an answer."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

from engine.enforcement.requests import Decided, Extend, Release, Request, Reserve, Settle
from engine.evaluation.results import RecordedTransition
from evaluator.enforcement.decisions import Decision
from generated.tidemark.v1 import decision_pb2, reservation_pb2
from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.turns import Slices
from server.calls.answer_size import DEFAULT_ROOM, FIELD_BYTES, fitting
from server.calls.errors import ApiError, ErrorTable, mapped
from server.calls.validation import shared_timestamp
from server.enforcement.reading import Check
from server.mapping.decisions import write_decision
from server.mapping.reservations import write_reservation
from server.mapping.transitions import transition_message

MAX_TRANSITIONS = 100  # in the answer to one request

# The part of the answer to a message in which results are shown in full; the rest are shown in short. What remains is
# enough for 1,000 results in short.
FULL_PART = 2

_WithTransitions: TypeAlias = (
    messages.ReserveUsageResponse | messages.SettleReservationResponse | messages.ReleaseReservationResponse
)


# Each answer is filled in where it is, because a message that is set into another one is copied. with_usage: of a
# reservation.


def write_decided(answer: _WithTransitions, decided: Decided, *, with_usage: bool = True) -> None:
    """Fills in the answer to a reservation, a settlement or a release."""
    if not isinstance(answer, messages.ReleaseReservationResponse) and decided.decision is not None:
        write_decision(answer.decision, decided.decision)
    write_reservation(answer.reservation, decided.reservation, with_usage=with_usage)
    answer.replayed = decided.replayed
    if decided.transitions:
        _add_transitions(answer, decided.transitions)


def write_extended(answer: messages.ExtendReservationResponse, decided: Decided, *, with_usage: bool = True) -> None:
    """Fills in the answer to an extension."""
    write_reservation(answer.reservation, decided.reservation, with_usage=with_usage)
    answer.replayed = decided.replayed


def write_checked(answer: messages.CheckUsageResponse, decision: Decision, update_time: datetime) -> None:
    """Fills in the answer to a check. update_time: before the decision."""
    write_decision(answer.decision, decision)
    answer.update_time.CopyFrom(shared_timestamp(update_time))


async def write_results(
    response: messages.EnforceUsageResponse,
    requests: Sequence[Request | Check | ApiError],
    answers: Iterable[Decided | Decision | Exception],
    update_time: datetime,
    table: ErrorTable,
    slices: Slices,
) -> None:
    """Fills in the results of a message.

    requests: an error in place of one that is not valid. answers: to the others. update_time: before the decisions.

    Reservations come without their usage. Results that do not fit are short.
    """
    await slices.begin()
    remaining = iter(answers)
    room = DEFAULT_ROOM // FULL_PART
    for request in requests:
        result = response.results.add()
        answer = request if isinstance(request, ApiError) else next(remaining)
        if isinstance(answer, Exception):
            result.error.CopyFrom(mapped(answer, table).status())
        else:
            _write_result(result, request, answer, update_time)
        size = result.ByteSize() + FIELD_BYTES
        if size > room:
            room = 0
            _shorten(result)
        else:
            room -= size
        await slices.pause()


def _write_result(
    result: messages.EnforcementResult,
    request: Request | Check | ApiError,
    answer: Decided | Decision,
    update_time: datetime,
) -> None:
    if isinstance(answer, Decision):
        write_checked(result.check, answer, update_time)
        return
    match request:
        case Reserve():
            write_decided(result.reserve, answer, with_usage=False)
        case Settle():
            write_decided(result.settle, answer, with_usage=False)
        case Release():
            write_decided(result.release, answer, with_usage=False)
        case Extend():
            write_extended(result.extend, answer, with_usage=False)
        case _:
            raise AssertionError(f"no answer belongs to {request!r}")


def _add_transitions(answer: _WithTransitions, transitions: Sequence[RecordedTransition]) -> None:
    shown, _ = fitting(map(transition_message, transitions[:MAX_TRANSITIONS]), DEFAULT_ROOM - answer.ByteSize())
    answer.transitions.extend(shown)
    answer.omitted_transition_count = len(transitions) - len(shown)


def _shorten(result: messages.EnforcementResult) -> None:
    """Leaves only what a caller needs to go on, about 200 bytes."""
    match result.WhichOneof("result"):
        case "error":
            del result.error.details[1:]  # the first one is ErrorInfo
            result.error.message = ""
            return
        case "check":
            _shorten_decision(result.check.decision)
            return
        case "extend":
            _shorten_reservation(result.extend.reservation)
            return
        case "release":
            answer: _WithTransitions = result.release
        case "reserve":
            _shorten_decision(result.reserve.decision)
            answer = result.reserve
        case "settle":
            _shorten_decision(result.settle.decision)
            answer = result.settle
        case _:
            return
    _shorten_reservation(answer.reservation)
    answer.omitted_transition_count += len(answer.transitions)
    del answer.transitions[:]


def _shorten_decision(decision: decision_pb2.Decision) -> None:
    for name in ("limit", "balance", "over"):
        decision.ClearField(name)


def _shorten_reservation(reservation: reservation_pb2.Reservation) -> None:
    for name in ("customer_id", "reservation_id"):  # as in the request
        reservation.ClearField(name)
