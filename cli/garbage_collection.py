"""Garbage collection in a server or notifier process.

While the collector searches, the event loop stands still: about 1 ms for 3,000 objects, also those that are in use.
"""

import asyncio
import gc
from typing import Any

from runtime.turns import of_loop

# New objects among which the collector searches for cycles. A commit of many events, which makes more than that, is
# searched while it is made.
YOUNG = 5_000
# Searches among new objects for each one among those that survived them. Under load most of these wait for their
# commit, and go with it, without a search.
SURVIVORS = 6
# The same while a light organization has a call in progress (see `runtime.turns`), which would wait for the search.
SURVIVORS_BESIDE_LIGHT = 60
# Searches among the survivors before one among all objects, which takes longer the more is cached. Cycles that live
# that long are rare.
ALL = 5_000


def reduce_garbage_collection() -> None:
    """Exempts all present objects from the collector, and makes it run seldom. Call it once, after the imports.

    A commit or an attempt frees its objects by reference counts. With Python's own threshold, the collector would
    traverse these objects again and again while they live, and find no cycles.
    """
    gc.freeze()
    gc.set_threshold(YOUNG, SURVIVORS_BESIDE_LIGHT, ALL)
    if _search_survivors not in gc.callbacks:
        gc.callbacks.append(_search_survivors)


def _search_survivors(phase: str, info: dict[str, Any]) -> None:
    """Lets the event loop search the survivors after a search among new objects, if it is time for that."""
    if phase != "stop" or info["generation"] or gc.get_count()[1] < SURVIVORS:
        return
    try:
        loop, turns = asyncio.get_running_loop(), of_loop()
    except RuntimeError:  # in a thread without a loop
        return
    if not turns.has_or_had_light_neighbour(None):
        loop.call_soon(_search_now)  # a search cannot begin within another one


def _search_now() -> None:
    if gc.get_count()[1] >= SURVIVORS:  # otherwise an earlier call has searched
        gc.collect(1)
