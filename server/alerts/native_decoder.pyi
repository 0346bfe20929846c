"""The types of the native decoder, which is compiled from `native_decoder.pyx`."""

from evaluator.events import UsageEvent

SOURCES_DIGEST: str

def scan(message: bytes) -> tuple[str, bool, int, int, int] | None:
    """The parts of a request beside its events, where its batch begins, and how many events it has."""

def read(message: bytes, start: int, most: int, earliest: int, latest: int) -> tuple[list[UsageEvent], int] | None:
    """The next events of a request, and where the ones after them begin."""
