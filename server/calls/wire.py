"""The fields of an encoded message, one after the other, without decoding it."""

from collections.abc import Iterator

from google.protobuf.message import DecodeError

VARINT, FIXED_64, LENGTH, GROUP_BEGIN, GROUP_END, FIXED_32 = range(6)  # the kinds of values on the wire

_NUMBER_BYTES = 10  # of a number, at most


def fields_of(message: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields between two places of a message: number, kind, and where the field, its value and the next begin.

    Raises DecodeError where protobuf does, too. The fields of a group appear like those of the message around it.
    """
    try:
        while at < end:
            begin = at
            tag = message[at]
            at += 1
            if tag > 127:
                tag, at = _number(message, begin)
            kind = tag & 7
            if kind == LENGTH:
                size = message[at]
                at += 1
                if size > 127:
                    size, at = _number(message, at - 1)
                value, at = at, at + size
            elif kind == VARINT:
                value = at
                while message[at] > 127:
                    at += 1
                at += 1
            elif kind in (FIXED_32, FIXED_64):
                value, at = at, at + (4 if kind == FIXED_32 else 8)
            elif kind in (GROUP_BEGIN, GROUP_END):
                value = at
            else:
                raise DecodeError("there is no such kind of field")
            if at > end:
                raise DecodeError("a field is longer than its message")
            if tag < 8:
                raise DecodeError("there is no field with the number 0")
            yield tag >> 3, kind, begin, value, at
    except IndexError:
        raise DecodeError("the message ends inside a field") from None


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins. Raises IndexError at the end of the message, and DecodeError."""
    result = 0
    for shift in range(0, 7 * _NUMBER_BYTES, 7):
        byte = message[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, at
    raise DecodeError("a number has more than 10 bytes")
