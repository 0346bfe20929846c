"""Garbage collection in a server or notifier process."""

import gc

THRESHOLD = 100_000  # objects that are created before the collector searches for cycles among them


def reduce_garbage_collection() -> None:
    """Exempts all present objects from the collector, and makes it run seldom. Call it once, after the imports.

    A commit or an attempt frees its objects by reference counts. With Python's own threshold, the collector would
    traverse these objects again and again while they live, and find no cycles.
    """
    gc.freeze()
    gc.set_threshold(THRESHOLD, 20, 50)
