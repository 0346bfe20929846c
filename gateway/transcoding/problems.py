"""What is wrong with a request, field by field."""

from dataclasses import dataclass

MAX_VIOLATIONS = 50  # of one request that are answered


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, as the contract names it, and the problem."""

    path: str
    description: str


class Problems:
    """What is wrong with a request."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    @property
    def is_full(self) -> bool:
        """Whether no more bad fields are kept."""
        return len(self.found) > MAX_VIOLATIONS

    def add(self, path: str, description: str) -> None:
        """One bad field more; the first ones are kept."""
        if not self.is_full:
            self.found.append(Violation(path, description))
