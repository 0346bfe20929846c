"""The locks of a data directory, which ensure that its processes use one server.

They are flocks. The kernel releases a lock when its process ends, also after `kill -9`, so no stale locks remain.

- start: exclusive, while a process joins the server or starts it.
- holders: shared by all processes that use the server. The keeper waits for it exclusively: it gets the lock when no
  holder is left, and holds it until the server has stopped.
- keeper: exclusive, as long as a keeper runs.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from store.embedded.layout import Layout

START = "start"
HOLDERS = "holders"
KEEPER = "keeper"


def open_lock(layout: Layout, name: str) -> int:
    """A descriptor of the lock file; takes no lock."""
    number = os.open(layout.locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    layout.give_to_owner(number)
    return number


def exclusive(number: int) -> None:
    """Waits for the lock and takes it exclusively."""
    fcntl.flock(number, fcntl.LOCK_EX)


def shared(number: int) -> None:
    """Waits for the lock and takes it shared."""
    fcntl.flock(number, fcntl.LOCK_SH)


def try_exclusive(number: int) -> bool:
    """Takes the lock exclusively if it is free; returns whether it did."""
    return _try(number, fcntl.LOCK_EX)


def try_shared(number: int) -> bool:
    """Takes the lock shared if no process holds it exclusively; returns whether it did."""
    return _try(number, fcntl.LOCK_SH)


def release(number: int) -> None:
    """Releases the lock; the descriptor stays open."""
    fcntl.flock(number, fcntl.LOCK_UN)


@contextlib.contextmanager
def starting(layout: Layout) -> Iterator[None]:
    """In this block, no other process joins or starts the server."""
    number = open_lock(layout, START)
    try:
        exclusive(number)
        yield
    finally:
        os.close(number)


def is_kept(layout: Layout) -> bool:
    """Whether a keeper runs."""
    number = open_lock(layout, KEEPER)
    try:
        return not try_shared(number)
    finally:
        os.close(number)


def claim_keeper(layout: Layout) -> int | None:
    """A descriptor with the keeper's lock, for a new keeper to inherit; None while a keeper runs."""
    number = open_lock(layout, KEEPER)
    while not try_exclusive(number):
        # Processes in `is_kept` hold it shared for a short time; a keeper holds it exclusively.
        if not try_shared(number):
            os.close(number)
            return None
    return number


def _try(number: int, how: int) -> bool:
    try:
        fcntl.flock(number, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
