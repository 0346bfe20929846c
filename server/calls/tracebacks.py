"""Frees what the exception of a call keeps in memory after the call."""

import asyncio


def free_after_call(error: BaseException) -> None:
    """Removes the tracebacks of an exception, and of those that led to it, when the current task has ended.

    gRPC keeps the exception with which a call was aborted in the state of the call, and SQLAlchemy keeps one of a
    statement in a local variable. Its traceback has the frames of the call, these have the context, and that has the
    state: only the garbage collector would find all of them. Until the task has ended, each frame that the exception
    leaves adds itself to the traceback.
    """
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _: _free(error))


def _free(error: BaseException) -> None:
    # The links between those before it stay: other calls may share one of them, and still log its cause.
    seen, left = set[int](), [error]
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [before for before in (one.__cause__, one.__context__) if before is not None]
    error.__cause__ = error.__context__ = None  # gRPC keeps the state of the last call until the next one
