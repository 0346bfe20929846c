"""What is wrong with a request, field by field."""

from dataclasses import dataclass

from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS

MAX_VIOLATIONS = 50  # of one request that are answered


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


class Problems:
    """What is wrong with a request.

    members: of all objects of its JSON that were read. too_many_events: the list whose events were not read.
    """

    def __init__(self, most_events: int = DEFAULT_MAX_BATCH_EVENTS) -> None:
        """most_events: of a batch of usage."""
        self.found: list[Violation] = []
        self.members = 0
        self.most_events = most_events
        self.too_many_events: TooManyEvents | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more bad fields are kept."""
        return len(self.found) > MAX_VIOLATIONS

    def add(self, path: str, description: str) -> None:
        """One bad field more; the first ones are kept."""
        if not self.is_full:
            self.found.append(Violation(path, description))
