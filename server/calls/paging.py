"""Pages: sizes within bounds, and tokens that fit only the list that gave them out."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar, cast

import orjson
from google.protobuf.message import Message

from generated.tidemark.v1 import error_reason_pb2
from server.calls import errors, identity
from server.calls.answers import MAX_ANSWER_BYTES
from server.calls.validation import Violations

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000  # larger sizes are coerced to it
MAX_TOKEN_LENGTH = 4096  # characters
MAX_PAGE_BYTES = MAX_ANSWER_BYTES  # of the messages on one page; a single message may be longer, up to CLIENT_LIMIT

_DIGEST_BYTES = 12

# What the last row of a page is found by again: the values of the list's sort columns.
CursorValue = str | int | datetime
Cursor = tuple[CursorValue, ...]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    size: int
    after: Cursor | None  # the last row of the page before; unset for the first page
    _digest: str

    @property
    def limit(self) -> int:
        """How many rows to read: one more than the page holds tells whether another page follows."""
        return self.size + 1

    def shown(self, rows: list[Item]) -> list[Item]:
        """The rows of this page, of up to `limit` rows read."""
        return rows[: self.size]

    def up_to(self, count: int) -> "Page":
        """The same page with no more than so many rows."""
        return replace(self, size=min(self.size, count))

    def cut(self, messages: Sequence[Message]) -> "Page":
        """The same page, but shorter where its messages would be more than a client takes in one answer."""
        total = 0
        for count, message in enumerate(messages[: self.size]):
            total += message.ByteSize()
            if total > MAX_PAGE_BYTES and count:
                return replace(self, size=count)
        return self

    def next_token(self, rows: list[Item], cursor_of: Callable[[Item], Cursor]) -> str:
        """The token of the page after this one, empty when this is the last.

        `rows` is what was read, up to `limit` of them; `cursor_of` gives a row's values of the sort columns.
        """
        if len(rows) <= self.size:
            return ""
        return self.token(cursor_of(rows[self.size - 1]))

    def token(self, cursor: Cursor) -> str:
        """The token of the page behind the row with that cursor."""
        plain = [value.isoformat() if isinstance(value, datetime) else value for value in cursor]
        return base64.urlsafe_b64encode(orjson.dumps([self._digest, *plain])).decode().rstrip("=")


def read_page(
    violations: Violations,
    page_size: int,
    page_token: str,
    method: str,
    filters: tuple[str, ...],
    shape: tuple[type[CursorValue], ...],
) -> Page:
    """The page that a list request asks for; `shape` is the types of the list's cursor.

    A negative size is a violation. Raises errors.InvalidArgument for a token that this method did not give
    out for the same filters and organization: going on with it would skip or repeat rows without a sign.
    """
    if page_size < 0:
        violations.add("page_size", f"it is {page_size}: give 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
    size = min(page_size, MAX_PAGE_SIZE) if page_size > 0 else DEFAULT_PAGE_SIZE
    bound_to = [identity.current_organization().organization_id, method, *filters]
    digest = hashlib.sha256(orjson.dumps(bound_to)).digest()[:_DIGEST_BYTES].hex()
    if not page_token:
        return Page(size, None, digest)
    cursor = _cursor(page_token, digest, shape)
    if cursor is None:
        raise errors.InvalidArgument(
            error_reason_pb2.ERROR_REASON_PAGE_TOKEN_INVALID,
            "the page token does not belong to this list: repeat the filters of the request that returned it,"
            " or start without a token",
            violations=[errors.FieldViolation("page_token", "not a token of this list")],
        )
    return Page(size, cursor, digest)


def _cursor(token: str, digest: str, shape: tuple[type[CursorValue], ...]) -> Cursor | None:
    """The cursor in a token; None for anything that was not made by `next_token` of the same list."""
    if len(token) > MAX_TOKEN_LENGTH:
        return None
    try:
        parts = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(parts, list) or len(parts) != 1 + len(shape) or parts[0] != digest:
        return None
    # Whoever forges a token gets to choose a place in a list of their own, and must not get to choose types.
    values = tuple(_value(value, kind) for value, kind in zip(parts[1:], shape, strict=True))
    return None if None in values else cast("Cursor", values)


def _value(value: object, kind: type[CursorValue]) -> CursorValue | None:
    if kind is int and type(value) is int and -(2**63) <= value < 2**63:
        return value
    if not isinstance(value, str) or "\0" in value:
        return None
    if kind is str:
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if kind is datetime and time.tzinfo is not None else None
