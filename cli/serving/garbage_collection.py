"""Garbage collection in a server or notifier process.

While the collector searches, the event loop stands still: about 1 ms for 3,000 objects, also those that are in use.
"""

import asyncio
import gc
from typing import Any, NamedTuple

from runtime.turns import of_loop


class Pace(NamedTuple):
    """How often the collector searches.

    young: new objects among which it searches for cycles. survivors: searches among new objects for each one among
    those that survived them.
    """

    young: int
    survivors: int


# A commit of 5,000 events is made, and most of its objects are freed, within few searches.
PACE = Pace(15_000, 3)
# While a light organization has a call in progress, or had one just before (see `runtime.turns`): a search is short,
# because the call waits for it. It costs a large commit 4 % more time. Most survivors wait for their commit, and go
# with it without a search.
BESIDE_LIGHT = Pace(5_000, 15)
# Searches among the survivors before one among all objects, which takes longer the more is cached and the more
# streams are open. Python also waits until a quarter of the objects has come since the last one. It counts what
# survived a search and was freed later, so with that alone every few notifications to 10,000 subscribers would lead
# to a search of 0.2 s. Calls leave no cycles (`server.calls.tracebacks`). What only this search finds are cycles of
# libraries that were in use during a search among survivors, such as those of a statement of SQLAlchemy that runs.
ALL = 1_000


def reduce_garbage_collection() -> None:
    """Exempts all present objects from the collector, and makes it run seldom. Call it once, after the imports.

    A commit or an attempt frees its objects by reference counts. With Python's own threshold, the collector would
    traverse these objects again and again while they live, and find no cycles.
    """
    gc.freeze()
    gc.set_threshold(PACE.young, BESIDE_LIGHT.survivors, ALL)
    if _set_pace not in gc.callbacks:
        gc.callbacks.append(_set_pace)


def _set_pace(phase: str, info: dict[str, Any]) -> None:
    """After a search among new objects: sets when the next one is, and lets the loop search the survivors."""
    if phase != "stop" or info["generation"]:
        return
    try:
        loop, pace = asyncio.get_running_loop(), _pace()
    except RuntimeError:  # in a thread without a loop
        return
    _, survivors, everything = gc.get_threshold()
    gc.set_threshold(pace.young, survivors, everything)
    if gc.get_count()[1] >= pace.survivors:
        loop.call_soon(_search_survivors)  # a search cannot begin within another one


def _search_survivors() -> None:
    if gc.get_count()[1] >= _pace().survivors:  # otherwise an earlier call has searched
        gc.collect(1)


def _pace() -> Pace:
    return BESIDE_LIGHT if of_loop().has_or_had_light_neighbour(None) else PACE
