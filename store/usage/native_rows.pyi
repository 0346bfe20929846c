"""The types of the writer of rows, which is compiled from `native_rows.pyx`."""

from collections.abc import Iterable

from evaluator.events import UsageEvent

SOURCES_DIGEST: str

def lines(head: str, ingested: str, events: Iterable[UsageEvent]) -> tuple[list[str], list[str]]:
    """The months of the events, and their rows without escapes."""
