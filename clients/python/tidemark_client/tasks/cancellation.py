"""Whether a CancelledError cancels the running task, or comes from something that the task awaits."""

import asyncio


def has_been_cancelled() -> bool:
    """Whether the running task is being cancelled, as far as Python can say: before 3.11 it cannot."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and bool(cancelling() > 0)


def is_being_cancelled() -> bool:
    """Whether a CancelledError that was just raised cancels the running task. If not, it comes from what it awaits.

    Before Python 3.11 each counts as one of the task.
    """
    task = asyncio.current_task()
    return task is not None and (not hasattr(task, "cancelling") or task.cancelling() > 0)
