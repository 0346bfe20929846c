"""What is wrong with a request, field by field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS

MAX_VIOLATIONS = 50  # of one request that are answered
MAX_VALUES = 100_000  # members of objects and elements of lists, without those of events; each takes up to 4 µs


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, as the contract names it, and the problem."""

    path: str
    description: str


@dataclass(frozen=True, slots=True)
class TooManyEvents:
    """A list of events at a path that has more than `most`."""

    path: str
    number: int
    most: int


@dataclass(frozen=True, slots=True)
class Later:
    """A list of events at a path, and the reader of each."""

    path: str
    events: Sequence[Any]
    read: Callable[[Any, str, "Problems"], Any]


class Problems:
    """What is wrong with a request.

    members: of all objects of its JSON that were read. too_many_events: the list whose events were not read.
    later: a list of events that is read in parts, when the rest of the request has been read.
    """

    def __init__(self, most_events: int = DEFAULT_MAX_BATCH_EVENTS, *, reads_later: bool = False) -> None:
        """most_events: of a batch of usage. reads_later: a list of events is kept to be read later."""
        self.found: list[Violation] = []
        self.members = 0
        self.most_events = most_events
        self.too_many_events: TooManyEvents | None = None
        self.reads_later = reads_later
        self.later: Later | None = None
        self._values = 0

    @property
    def is_full(self) -> bool:
        """Whether no more bad fields are kept."""
        return len(self.found) > MAX_VIOLATIONS

    def has_too_many(self, values: int, path: str) -> bool:
        """Whether the request has too many values, with these at a path, which is a problem then."""
        before, self._values = self._values, self._values + values
        if self._values <= MAX_VALUES or self.later is not None:
            return False
        if before <= MAX_VALUES:
            self.add(path, f"the request has more than {MAX_VALUES:,} values up to here: send less in one request")
        return True

    def add(self, path: str, description: str) -> None:
        """One bad field more; the first ones are kept."""
        if not self.is_full:
            self.found.append(Violation(path, description))
