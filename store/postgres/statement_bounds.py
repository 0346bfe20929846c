"""How long the statements of a call may run: until its deadline.

When the deadline of a call passes, its task is cancelled, and the driver cancels the statement. That needs a process
that works: when it hangs, its connections stay open and its statements go on, with their locks. So PostgreSQL knows
the deadline, too, as the `statement_timeout` of the call's transactions. Transactions of other work have the one of
their session.
"""

import asyncio
import weakref
from contextvars import ContextVar
from dataclasses import dataclass

from store.postgres.sessions import STATEMENT_TIMEOUT

# Seconds after the deadline at which PostgreSQL ends a statement. The driver's own cancellation comes first, and then
# the call ends with DEADLINE_EXCEEDED and not with a failure of the database.
MARGIN = 1.0


@dataclass(frozen=True, slots=True)
class _Bound:
    task: "weakref.ref[asyncio.Task[object]]"  # the task keeps this object, in its context
    end: float  # by the event loop's clock


_bound: ContextVar[_Bound | None] = ContextVar("statement_bound", default=None)


def bound_statements(seconds: float) -> None:
    """Bounds the statements of the current task to so many seconds from now, and MARGIN.

    Tasks that it creates are not bounded: they work for several calls, or go on after the call has ended.
    """
    task = asyncio.current_task()
    assert task is not None
    _bound.set(_Bound(weakref.ref(task), asyncio.get_running_loop().time() + seconds))


def statement_timeout() -> int | None:
    """The milliseconds that a statement of the current task may run; None where that of the session is enough."""
    bound = _bound.get()
    if bound is None or bound.task() is not asyncio.current_task():
        return None
    seconds = max(bound.end - asyncio.get_running_loop().time(), 0.0) + MARGIN
    return None if seconds >= STATEMENT_TIMEOUT else int(seconds * 1_000)
