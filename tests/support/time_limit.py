"""A time limit for each test: a test that waits in vain fails, and shows the line where it waited.

Otherwise a test that waits in vain would stop the whole run without a message. Each phase of a
test (set-up, call, tear-down) has DEFAULT_LIMIT, or the limit of the marker `time_limit(seconds)` or of the variable
TIDEMARK_TEST_LIMIT; 0 is no limit. It is far above the time of any test on a busy machine: shorter limits
belong to the helpers, which can name what is missing.
"""

import asyncio
import faulthandler
import io
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

DEFAULT_LIMIT = 600.0  # seconds
REPEAT = 10.0  # seconds until the next interruption of a test that caught the first one, or cleans up for too long
LAST_RESORT = 60.0  # seconds from the limit to the end of the process when no Python code can be interrupted

_stderr = 2


class Overdue(BaseException):
    """A test exceeded its limit. Not an Exception: neither the code under test nor Hypothesis may catch it."""


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, and keeps the process's own stderr: during a test, pytest redirects stderr to a file."""
    global _stderr
    _stderr = os.dup(2)
    config.addinivalue_line("markers", "time_limit(seconds): how long each phase of the test may last")
    config.addinivalue_line("markers", "long: takes minutes, so that it is begun before all others")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Limits the set-up of the test's fixtures."""
    yield from _limited(item, "set-up")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Limits the test itself."""
    yield from _limited(item, "call")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Limits the tear-down of the test's fixtures."""
    yield from _limited(item, "tear-down")


def _limited(item: pytest.Item, phase: str) -> Iterator[None]:
    marker = item.get_closest_marker("time_limit")
    limit = float(marker.args[0] if marker else os.environ.get("TIDEMARK_TEST_LIMIT") or DEFAULT_LIMIT)
    if not limit or threading.current_thread() is not threading.main_thread():
        return (yield)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Overdue(f"the {phase} of {item.nodeid} has lasted {limit:g} seconds\n{_tasks()}")

    before = signal.signal(signal.SIGALRM, interrupt)
    faulthandler.dump_traceback_later(limit + LAST_RESORT, exit=True, file=_stderr)
    signal.setitimer(signal.ITIMER_REAL, limit, REPEAT)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _tasks() -> str:
    """The stack of every task of the running event loop, innermost call last."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return "no event loop runs"
    text = io.StringIO()
    for task in sorted(tasks, key=lambda task: task.get_name()):
        text.write(f"task {task.get_name()}:\n")
        waiting: Any = task.get_coro()
        while waiting is not None:
            for kind in ("cr", "ag", "gi"):
                if (frame := getattr(waiting, f"{kind}_frame", None)) is not None:
                    text.write("".join(traceback.format_list(traceback.extract_stack(frame, limit=1))))
                    break
            else:
                break
            waiting = getattr(waiting, f"{kind}_yieldfrom" if kind == "gi" else f"{kind}_await", None)
    return text.getvalue()
