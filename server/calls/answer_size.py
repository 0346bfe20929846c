"""How large answers may be: every method stays below what a gRPC client accepts by default."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from runtime.turns import Slices

CLIENT_LIMIT = 4 * 1024 * 1024  # bytes of one message that gRPC clients accept by default; they refuse a longer one
MAX_ANSWER_BYTES = 3 * 1024 * 1024  # for the list of an answer; its other fields use the rest of CLIENT_LIMIT
MAX_DEFINITION_BYTES = 2 * 1024 * 1024  # of one alert in an answer, beside which an answer shows customers' states

_FIELD_BYTES = 6  # tag and length of one message in a list, at most

Shown = TypeVar("Shown", bound=Message)


def fitting(messages: Iterable[Shown], room: int) -> tuple[list[Shown], int]:
    """The first messages that fit into `room` bytes, and the bytes that remain.

    Stops at the first message that does not fit, so a lazy iterator makes no message after it.
    """
    taken: list[Shown] = []
    for message in messages:
        size = message.ByteSize() + _FIELD_BYTES
        if size > room:
            break
        room -= size
        taken.append(message)
    return taken, room


async def fitting_in_slices(messages: Iterable[Shown], room: int, slices: Slices) -> tuple[list[Shown], int]:
    """The same as `fitting`, for messages that take long to make. The caller has begun a slice."""
    taken: list[Shown] = []
    for message in messages:
        size = message.ByteSize() + _FIELD_BYTES
        if size > room:
            break
        room -= size
        taken.append(message)
        await slices.pause()
    return taken, room
