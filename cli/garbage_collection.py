"""Garbage collection in a server or notifier process."""

import gc

# Objects that are created before the collector searches for cycles among them. While it searches, the event loop
# stands still: 26 ms for 100,000 objects, also those that survived `SURVIVORS` searches. With 5,000 a commit of
# many events is searched again and again while it is made.
YOUNG = 15_000
# Searches among young objects for each one among those that survived them. Under load these wait for their commit.
SURVIVORS = 2
# Searches among the survivors before one among all objects, which takes longer the more is cached. Cycles that live
# that long are rare.
ALL = 5_000


def reduce_garbage_collection() -> None:
    """Exempts all present objects from the collector, and makes it run seldom. Call it once, after the imports.

    A commit or an attempt frees its objects by reference counts. With Python's own threshold, the collector would
    traverse these objects again and again while they live, and find no cycles.
    """
    gc.freeze()
    gc.set_threshold(YOUNG, SURVIVORS, ALL)
