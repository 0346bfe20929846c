"""Garbage collection while very many subscribers get an answer."""

import gc

# Answers and waits between two runs of the garbage collector. Each of them replaces about ten objects. Without a
# count of our own, the collector would run when many more objects were created than freed. That is seldom here, and
# then it searches the objects of all 10,000 subscribers at once, which stops the event loop for 0.2 s.
STEPS = 500
_SURVIVORS = 1  # a generation of the collector, which is searched with the younger one


class Collections:
    """Runs the garbage collector regularly, so that each run has few objects to search."""

    def __init__(self) -> None:
        self._steps = 0

    def count(self) -> None:
        """Counts one answer or one wait of a subscriber."""
        self._steps += 1
        if self._steps == STEPS:
            self._steps = 0
            gc.collect(_SURVIVORS)
