"""Marks that choose whose server a test uses: one that the tests of its module share, or one of its own.

A server of its own costs a test about 0.05 seconds of CPU time, even on the connections of the test before it, and
about 0.15 seconds with connections of its own. A test that only needs an organization of its own shares the server of
its module.

- `pytestmark = shares_server` lets the tests of a module share a server; `@shares_server` does so for one test.
- `@own_server` exempts one test of such a module: one that moves the clock, has limits of its own, stops or breaks
  its server, replaces parts of it, or counts what the whole server does.
- `@own_connections` is for a test that cuts connections, or counts them: its server uses new ones, and so do the
  servers of the tests after it.
- `@own_database` is for a test in a folder whose tests share a database (`tests/support/emptied.py`): one that breaks
  or alters the database, cuts its connections, or gathers statistics of its tables.

The fixture `caller`, and `ours` and `theirs` of the alert tests, follow these marks. The clock of a shared server
stands still: moving it fails the test.
"""

from datetime import datetime, timedelta

import pytest

from runtime.clock import ManualClock

shares_server = pytest.mark.shares_server
own_server = pytest.mark.own_server
own_connections = pytest.mark.own_connections
own_database = pytest.mark.own_database


def declare_marks(config: pytest.Config) -> None:
    """Declares the marks to pytest, which refuses unknown ones."""
    config.addinivalue_line("markers", "shares_server: uses the server that the tests of the module share")
    config.addinivalue_line("markers", "own_server: uses a server of its own, in a module with `shares_server`")
    config.addinivalue_line("markers", "own_connections: its server uses new connections")
    config.addinivalue_line("markers", "own_database: uses a new database, in a folder whose tests share one")


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
    closest = [mark.name for mark in request.node.iter_markers() if mark.name in ("shares_server", "own_server")]
    return closest[:1] == ["shares_server"]


def has_own_connections(request: pytest.FixtureRequest) -> bool:
    """Whether the server of the test's own has connections of its own."""
    return request.node.get_closest_marker("own_connections") is not None


def has_own_database(request: pytest.FixtureRequest) -> bool:
    """Whether the test uses a new database."""
    return request.node.get_closest_marker("own_database") is not None
