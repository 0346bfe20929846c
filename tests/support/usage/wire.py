"""Usage requests that are drawn field by field as bytes, in encodings that protobuf accepts or nearly accepts.

Numbers and lengths have more bytes than they need or say too much. Fields come twice, in any order, empty, unknown or
of another wire type. Messages come in two parts, which protobuf merges.
"""

import random
from collections.abc import Callable

from tests.support.usage.encoding import (
    BAD_AMOUNTS,
    BAD_CURRENCIES,
    BAD_IDS,
    BAD_VALUES,
    NOON,
    VALID_AMOUNTS,
    VALID_CURRENCIES,
    VALID_IDS,
    VALID_VALUES,
)

NOON_SECONDS = int(NOON.timestamp())
ODD_NUMBERS = [0, 1, -1, 127, 128, 2**28, 2**31 - 1, 2**31, -(2**31), 2**32, 2**32 + 5, 2**62, 2**63 - 1, -(2**63)]
ODD_SECONDS = [*ODD_NUMBERS, 253_402_300_799, 253_402_300_800, -62_135_596_801]
ODD_NANOS = [*ODD_NUMBERS, 999, 999_999_999, 1_000_000_000]
NOT_UTF8 = [
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"a\xe2\x82",
    b"\x80",
]
VARINT, FIXED_64, LENGTH, GROUP, END_OF_GROUP, FIXED_32 = range(6)  # wire types


class Wire:
    """Draws requests. oddness: the probability that a part of a request is odd."""

    def __init__(self, draw: random.Random, oddness: float) -> None:
        self._draw = draw
        self._oddness = oddness

    def request(self) -> bytes:
        """An encoded EvaluateUsageRequest."""
        fields = [self._field(2, self._event()) for _ in range(self._draw.randint(1, 3))]
        if self._is(0.3):
            fields.insert(0, self._text(1, VALID_IDS, BAD_IDS))
        if self._is(0.3):
            fields.append(b"\x18" + self._number(1, ODD_NUMBERS))
        if self._is(0.3):
            fields.append(b"\x20" + self._number(2**21, ODD_NUMBERS))
        parts = [self._field(1, b"".join(self._rearranged(fields)))]
        return b"".join(self._rearranged(parts))

    def _event(self) -> bytes:
        raw = self._is(0.2)
        fields = [self._text(1, VALID_IDS, BAD_IDS), self._text(2, VALID_IDS, BAD_IDS)]
        if self._is(0.3):
            fields.append(self._text(3, VALID_IDS, BAD_IDS))
        fields += [self._text(10 if raw else 4, VALID_IDS, BAD_IDS), self._text(5, VALID_AMOUNTS, BAD_AMOUNTS)]
        if self._is(0.4):
            fields += [self._text(6, VALID_AMOUNTS, BAD_AMOUNTS), self._text(7, VALID_CURRENCIES, BAD_CURRENCIES)]
        if self._is(0.1):
            fields.append(self._text(11, VALID_IDS, BAD_IDS))
        fields.append(self._field(8, self._time()))
        if self._is_odd():
            fields.append(self._field(8, self._time()))
        fields += [self._field(9, self._property()) for _ in range(self._draw.randrange(4))]
        return b"".join(self._rearranged(fields))

    def _time(self) -> bytes:
        seconds = b"\x08" + self._number(NOON_SECONDS - self._draw.randrange(100_000), ODD_SECONDS)
        return b"".join(self._rearranged([seconds, b"\x10" + self._number(self._draw.randrange(10**9), ODD_NANOS)]))

    def _property(self) -> bytes:
        return b"".join(
            self._rearranged([self._text(1, VALID_IDS, BAD_IDS), self._text(2, VALID_VALUES, BAD_VALUES)])
        )

    def _text(self, number: int, valid: list[str], bad: list[str]) -> bytes:
        text = self._draw.choice(valid).encode()
        if self._is_odd():
            text = self._draw.choice([self._draw.choice(bad).encode(), self._draw.choice(NOT_UTF8)])
        return self._field(number, text)

    def _field(self, number: int, content: bytes) -> bytes:
        size = len(content)
        if self._is_odd():
            sizes = [size + 1, max(0, size - 1), size + 2**32, 2**28, 2**31, 2**32 - 1, 2**63, 2**64 - 1, size, size]
            size = self._draw.choice(sizes)
        return self._number(number << 3 | LENGTH, []) + self._number(size, []) + content

    def _number(self, number: int, odd: list[int]) -> bytes:
        """A number; an odd one is another number, or has more bytes than it needs."""
        padding = 0
        if self._is_odd():
            number, padding = self._draw.choice(odd or [number]), self._draw.choice([0, 1, 2, 8, 9])
        number &= 2**64 - 1
        encoded = b""
        while number >= 0x80:
            encoded += bytes([number & 0x7F | 0x80])
            number >>= 7
        if not padding:
            return encoded + bytes([number])
        return encoded + bytes([number | 0x80]) + b"\x80" * (padding - 1) + b"\x00"

    def _rearranged(self, fields: list[bytes]) -> list[bytes]:
        """The fields of a message; odd ones are in another order, or one of them is missing, there twice or new."""
        fields = list(fields)
        if not self._is_odd():
            return fields
        at = self._draw.randrange(len(fields))
        changes: list[Callable[[], object]] = [
            lambda: self._draw.shuffle(fields),
            lambda: fields.pop(at),
            lambda: fields.insert(self._draw.randint(0, len(fields)), fields[at]),
            lambda: fields.insert(at, bytes([self._draw.randint(1, 10) << 3 | LENGTH, 0])),
            lambda: fields.insert(at, self._any_field()),
        ]
        self._draw.choice(changes)()
        return fields

    def _any_field(self) -> bytes:
        """A field of any number and wire type."""
        number = self._draw.choice([*range(1, 13), 15, 16, 2**29 - 1, 0])
        kind = self._draw.choice([VARINT, FIXED_64, LENGTH, GROUP, END_OF_GROUP, FIXED_32, 6, 7])
        content = {
            VARINT: self._number(self._draw.choice(ODD_NUMBERS), []),
            FIXED_64: bytes(8),
            LENGTH: b"\x02ab",
            GROUP: self._number(self._draw.choice([number, number, 3]) << 3 | END_OF_GROUP, []),
            FIXED_32: bytes(4),
        }
        return self._number(number << 3 | kind, []) + content.get(kind, b"")

    def _is(self, probability: float) -> bool:
        return self._draw.random() < probability

    def _is_odd(self) -> bool:
        return self._is(self._oddness)
