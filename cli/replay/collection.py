"""Garbage collection while files are read."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Rows live until the server has acknowledged their batch: some ten thousand, among which a search finds nothing.
# Python's own pace, a search for every 700 new objects, takes up to a third of the time of reading.
NEW_OBJECTS = 100_000


@contextmanager
def rare_collection() -> Iterator[None]:
    """Searches for cycles seldom while the block runs. Rows make none; those of other objects are freed later."""
    before = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
