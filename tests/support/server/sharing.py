"""Marks that choose whose server a test uses: one that the tests of its module share, or one of its own.

A server of its own costs a test about 0.1 seconds of CPU time: the start, a dozen connections, and statements that
are compiled and planned again. A test that only needs an organization of its own shares the server of its module.

- `pytestmark = shares_server` lets the tests of a module share a server; `@shares_server` does so for one test.
- `@own_server` exempts one test of such a module: one that moves the clock, has limits of its own, stops or breaks
  its server, replaces parts of it, or counts what the whole server does.

The fixture `caller`, and `ours` and `theirs` of the alert tests, follow these marks. The clock of a shared server
stands still: moving it fails the test. Async fixtures of such a module need
`@pytest_asyncio.fixture(loop_scope="module")`, so that they run in the server's loop.
"""

from datetime import datetime, timedelta

import pytest

from runtime.clock import ManualClock

# A server lives in the event loop that started it, so the tests that share it run in one loop.
_LOOP = "module"

shares_server = pytest.mark.asyncio(loop_scope=_LOOP)
own_server = pytest.mark.asyncio(loop_scope="function")


class StandingClock(ManualClock):
    """The clock of a shared server. A test that moved it would move it for the tests after it, too."""

    def set(self, time: datetime) -> None:
        """Refuses."""
        raise AssertionError("the server is shared: a test that moves its clock has the mark `own_server`")

    def advance(self, step: timedelta) -> None:
        """Refuses."""
        self.set(self.now() + step)


def is_shared(request: pytest.FixtureRequest) -> bool:
    """Whether the test shares the server of its module."""
    mark = request.node.get_closest_marker("asyncio")
    return mark is not None and mark.kwargs.get("loop_scope") == _LOOP
