"""How large answers may become: every method keeps below what a gRPC client takes without settings of its own."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from runtime.turns import Slices

CLIENT_LIMIT = 4 * 1024 * 1024  # bytes of one message that gRPC clients take by default; they refuse a longer one
MAX_ANSWER_BYTES = 3 * 1024 * 1024  # of what one answer lists; the rest of CLIENT_LIMIT is for the fields beside it
MAX_DEFINITION_BYTES = 2 * 1024 * 1024  # of one alert as answers show it; customers' states stand beside it

_FIELD_BYTES = 6  # tag and length of one message in a list, at most

Shown = TypeVar("Shown", bound=Message)


def fitting(messages: Iterable[Shown], room: int) -> tuple[list[Shown], int]:
    """The first messages that fit into `room` bytes, and the room that they leave.

    Takes no message behind the first that does not fit, so an iterator that makes them makes no more.
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
    """The same as `fitting`, in slices: for messages that take long to make. A slice has begun."""
    taken: list[Shown] = []
    for message in messages:
        size = message.ByteSize() + _FIELD_BYTES
        if size > room:
            break
        room -= size
        taken.append(message)
        await slices.pause()
    return taken, room
