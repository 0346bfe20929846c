"""Pages of lists: sizes within bounds, and page tokens that only their own list accepts."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar, cast

from generated.tidemark.v1 import error_reason_pb2
from runtime.turns import Slices
from server.calls import errors, tokens
from server.calls.answer_size import DEFAULT_ROOM, FIELD_BYTES, AnswerField, Shown
from server.calls.current_call import current_organization
from server.calls.validation import Violations

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000  # larger sizes are reduced to it
MAX_TOKEN_LENGTH = 4096  # characters

# The values of the list's sort columns in the last row of a page. The next page begins after them.
CursorValue = str | int | datetime
Cursor = tuple[CursorValue, ...]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page:
    """The part of a list that a request asks for."""

    size: int
    after: Cursor | None  # of the last row of the page before; unset for the first page
    _digest: str

    @property
    def limit(self) -> int:
        """How many rows to read: one more than the page shows, so that it is known whether another page follows."""
        return self.size + 1

    def shown(self, rows: list[Item]) -> list[Item]:
        """The rows of this page, from up to `limit` rows."""
        return rows[: self.size]

    def up_to(self, count: int) -> "Page":
        """The same page with at most `count` rows."""
        return replace(self, size=min(self.size, count))

    async def cut_into(
        self, field: AnswerField[Shown], messages: Iterable[Shown], room: int = DEFAULT_ROOM
    ) -> "Page":
        """Adds the messages of the page to a field of its answer; returns the page, shortened to those that fit.

        It keeps at least one. room: bytes of the messages. They may be made lazily: the page can have a thousand of
        them, so the work is done in slices.
        """
        slices = Slices(current_organization().organization_id)
        slices.begin_at_once()
        for count, message in enumerate(itertools.islice(messages, self.size)):
            size = message.ByteSize() + FIELD_BYTES
            if size > room and count:
                return replace(self, size=count)
            room -= size
            field.append(message)
            await slices.pause()
        return self

    def next_token(
        self, rows: list[Item], cursor_of: Callable[[Item], Cursor], examined_to: Cursor | None = None
    ) -> str:
        """The token of the page after this one; empty when this is the last page.

        `rows` are all rows that were read, up to `limit`; `cursor_of` returns a row's values of the sort columns.
        examined_to: where the read ended although more rows may follow.
        """
        if len(rows) <= self.size:
            return "" if examined_to is None else self.token(examined_to)
        return self.token(cursor_of(rows[self.size - 1]))

    def token(self, cursor: Cursor) -> str:
        """The token of the page after the row with that cursor."""
        plain = [value.isoformat() if isinstance(value, datetime) else value for value in cursor]
        return tokens.encode(self._digest, *plain)


BY_TIME: tuple[type[CursorValue], ...] = (datetime, str)  # the cursor of lists by create_time and id


BY_TWO_IDS: tuple[type[CursorValue], ...] = (str, str)  # the cursor of lists by customer id and id


def after_two_ids(page: Page) -> tuple[str, str] | None:
    """Where a page of a list by two ids begins; None for the first page."""
    return cast("tuple[str, str] | None", page.after)


def after_time_and_id(page: Page) -> tuple[datetime, str] | None:
    """Where a page of a list by create_time and id begins; None for the first page."""
    return cast("tuple[datetime, str] | None", page.after)


def read_page(
    violations: Violations,
    page_size: int,
    page_token: str,
    method: str,
    filters: tuple[str, ...],
    shape: tuple[type[CursorValue], ...],
) -> Page:
    """The page that a list request asks for; `shape` has the types of the list's cursor.

    A negative size is a violation. Raises errors.InvalidArgument for a token of another method, organization or set
    of filters: the list would skip or repeat rows, and the caller would not notice.
    """
    if page_size < 0:
        violations.add("page_size", f"it is {page_size}: give 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
    size = min(page_size, MAX_PAGE_SIZE) if page_size > 0 else DEFAULT_PAGE_SIZE
    digest = tokens.digest_of(method, filters)
    if not page_token:
        return Page(size, None, digest)
    cursor = _cursor(page_token, digest, shape)
    if cursor is None:
        raise invalid_page_token()
    return Page(size, cursor, digest)


def invalid_page_token() -> errors.InvalidArgument:
    """The error for a token that is not one of the list."""
    return errors.InvalidArgument(
        error_reason_pb2.ERROR_REASON_PAGE_TOKEN_INVALID,
        "the page token does not belong to this list: repeat the filters of the request that returned it,"
        " or start without a token",
        violations=[errors.FieldViolation("page_token", "not a token of this list")],
    )


def _cursor(token: str, digest: str, shape: tuple[type[CursorValue], ...]) -> Cursor | None:
    """The cursor in a token; None for a token of another list, and for any other text."""
    values = tokens.decode(token, MAX_TOKEN_LENGTH)
    if values is None or len(values) != 1 + len(shape) or values[0] != digest:
        return None
    # A caller can forge the position in its own list. It must not be able to choose the types of SQL parameters.
    cursor = tuple(_value(value, kind) for value, kind in zip(values[1:], shape, strict=True))
    return None if None in cursor else cast("Cursor", cursor)


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
