"""Whether a CancelledError cancels the running task, or comes from something that the task awaits."""

import asyncio


def is_being_cancelled() -> bool:
    """Whether the running task is being cancelled. If not, a CancelledError comes from something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
