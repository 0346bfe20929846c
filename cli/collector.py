"""Garbage collection in a server or notifier process."""

import gc

THRESHOLD = 100_000  # objects that are made before the collector looks for cycles among them


def collect_seldom() -> None:
    """Leaves what exists alone, and collects less often; to be called once, after the imports.

    A commit or an attempt drops all that it makes without the collector's help. With Python's own threshold the
    collector would go through all of these objects again and again meanwhile.
    """
    gc.freeze()
    gc.set_threshold(THRESHOLD, 20, 50)
