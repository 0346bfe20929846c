"""The requests of a batch: their number, their checks one by one, and the error that names the one that is wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from runtime.turns import Slices
from server.calls.errors import ApiError, FieldViolation, InvalidArgument
from server.calls.validation import Violations
from store.alerts.change import ItemRefused

MAX_ITEMS = 1_000  # of one batch

Item = TypeVar("Item")
Read = TypeVar("Read")


def check_items(violations: Violations, items: Sequence[object], unset: Sequence[str]) -> None:
    """Notes a wrong number of requests, and requests with fields that only the batch has."""
    if not 1 <= len(items) <= MAX_ITEMS:
        violations.add("requests", f"there are {len(items)}: give 1 to {MAX_ITEMS:,}")
        return
    for index, item in enumerate(items):
        for name in unset:
            if getattr(item, name):
                violations.add(f"requests[{index}].{name}", "set it on the batch, not on one of its requests")


async def read_items(items: Sequence[Item], read: Callable[[Item], Read], slices: Slices) -> list[Read]:
    """What `read` returns for each item. Raises ItemRefused for the first that is wrong; it has the others too."""
    done, invalid = list[Read](), list[ItemRefused]()
    for index, item in enumerate(items):
        await slices.pause()
        try:
            done.append(read(item))
        except InvalidArgument as error:
            invalid.append(ItemRefused(index, error))
        except Exception as error:
            invalid.append(ItemRefused(index, error))
            break
    if invalid:
        first, *others = invalid
        raise ItemRefused(first.index, first.cause, others)
    return done


@contextmanager
def of_one_item() -> Iterator[None]:
    """Lets a function for several items serve a request for one: its error is that of the item."""
    try:
        yield
    except ItemRefused as refused:
        raise refused.cause from None


def at_item(error: ApiError, index: int, others: Mapping[int, ApiError]) -> ApiError:
    """The error of one request of a batch, with the violations of others that are invalid, too."""
    violations = _at(error, index)
    for other, theirs in others.items():
        violations += _at(theirs, other)
    return type(error)(
        error.reason,
        f"requests[{index}]: {error.message}",
        metadata={**error.metadata, "index": str(index)},
        violations=violations,
        retry_after=error.retry_after,
        exhausted=error.exhausted,
    )


def _at(error: ApiError, index: int) -> list[FieldViolation]:
    prefix = f"requests[{index}]"
    if not error.violations:
        return [FieldViolation(prefix, error.message)]
    return [FieldViolation(f"{prefix}.{one.path}", one.description) for one in error.violations]
