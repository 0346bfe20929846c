"""How large answers are: one budget for every method, which a request can raise where its method allows it.

A method leaves out or puts on the next page what does not fit, so that the caller can continue.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from runtime.turns import Slices
from server.calls import current_call
from server.calls.validation import Violations

CLIENT_LIMIT = 4 * 1024 * 1024  # bytes of one message that gRPC clients accept by default; they refuse a longer one
DEFAULT_ANSWER_BYTES = 2 * 1024 * 1024  # of an answer, unless the request asks for more
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # that a request can ask for
MAX_DEFINITION_BYTES = 1024 * 1024  # of one alert; the rest of an answer is for the states of customers

_OTHER_BYTES = 8 * 1024  # of an answer beside its lists: ids, counts, a token
FIELD_BYTES = 6  # tag and length of one message in a list, at most

DEFAULT_ROOM = DEFAULT_ANSWER_BYTES - _OTHER_BYTES  # bytes for the lists of an answer

Shown = TypeVar("Shown", bound=Message)
Added = TypeVar("Added", contravariant=True)


def answer_bytes_problem(requested: int) -> str | None:
    """What is wrong with a max_answer_bytes; None if it is valid."""
    if requested == 0 or DEFAULT_ANSWER_BYTES <= requested <= MAX_ANSWER_BYTES:
        return None
    return f"it is {requested}: give {DEFAULT_ANSWER_BYTES} to {MAX_ANSWER_BYTES}, or 0 for {DEFAULT_ANSWER_BYTES}"


def read_room(violations: Violations, requested: int, default: int = DEFAULT_ROOM) -> int:
    """The bytes for the lists of an answer to a request with that max_answer_bytes; `default` if it has none."""
    if (problem := answer_bytes_problem(requested)) is not None:
        violations.add("max_answer_bytes", problem)
        return default
    return room_of(requested) if requested else default


def room_of(requested: int) -> int:
    """The same for a valid max_answer_bytes; the check of the finished answer allows as much from now on."""
    if not requested:
        return DEFAULT_ROOM
    current_call.get().allow_answer(requested)
    return requested - _OTHER_BYTES


def fitting(messages: Iterable[Shown], room: int) -> tuple[list[Shown], int]:
    """The first messages that fit into `room` bytes, and the bytes that remain.

    Stops at the first message that does not fit, so a lazy iterator makes no message after it.
    """
    taken: list[Shown] = []
    for message in messages:
        size = message.ByteSize() + FIELD_BYTES
        if size > room:
            break
        room -= size
        taken.append(message)
    return taken, room


class AnswerField(Protocol[Added]):
    """A field of an answer that has many messages."""

    def append(self, message: Added, /) -> None:
        """Adds a copy of a message."""


async def add_in_slices(field: AnswerField[Shown], messages: Iterable[Shown], slices: Slices) -> None:
    """Adds messages to a field of an answer; each is copied. The caller has begun a slice."""
    for message in messages:
        field.append(message)
        await slices.pause()


async def fitting_in_slices(messages: Iterable[Shown], room: int, slices: Slices) -> tuple[list[Shown], int]:
    """The same as `fitting`, for messages that take long to make. The caller has begun a slice."""
    taken: list[Shown] = []
    for message in messages:
        size = message.ByteSize() + FIELD_BYTES
        if size > room:
            break
        room -= size
        taken.append(message)
        await slices.pause()
    return taken, room
