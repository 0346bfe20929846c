"""The locks of a data directory, by which its processes agree on one server.

All of them are flocks. The kernel releases a lock with the process that has it, also after `kill -9`, so no list of
processes can be out of date.

- start: exclusive, while a process joins the server or starts it.
- holders: shared by every process that uses the server. The keeper waits for it exclusively: it gets it once no
  holder is left, and has it until the server has stopped.
- keeper: exclusive, as long as a keeper lives.
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
    """A descriptor of the lock file, with no lock on it yet."""
    number = os.open(layout.locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    layout.give_to_owner(number)
    return number


def exclusive(number: int) -> None:
    """Waits until the lock is ours alone."""
    fcntl.flock(number, fcntl.LOCK_EX)


def shared(number: int) -> None:
    """Waits until the lock is ours among others."""
    fcntl.flock(number, fcntl.LOCK_SH)


def try_exclusive(number: int) -> bool:
    """Takes the lock alone, if it is free."""
    return _try(number, fcntl.LOCK_EX)


def try_shared(number: int) -> bool:
    """Takes the lock among others, if none has it alone."""
    return _try(number, fcntl.LOCK_SH)


def release(number: int) -> None:
    """Gives the lock back and keeps the descriptor."""
    fcntl.flock(number, fcntl.LOCK_UN)


@contextlib.contextmanager
def starting(layout: Layout) -> Iterator[None]:
    """Within the block, no other process joins or starts the server."""
    number = open_lock(layout, START)
    try:
        exclusive(number)
        yield
    finally:
        os.close(number)


def is_kept(layout: Layout) -> bool:
    """Whether a keeper lives."""
    number = open_lock(layout, KEEPER)
    try:
        return not try_shared(number)
    finally:
        os.close(number)


def claim_keeper(layout: Layout) -> int | None:
    """A descriptor with the keeper's lock, for a new keeper to inherit; None while a keeper lives."""
    number = open_lock(layout, KEEPER)
    while not try_exclusive(number):
        # Shared, it is had for a moment by processes that only ask whether a keeper lives.
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
