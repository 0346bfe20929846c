"""Fixtures of the tests of commands: a server that the tests of a module share, and a shell that calls it."""

from pathlib import Path

import pytest

from tests.support.cli.commands import Shell
from tests.support.usage.caller import Caller
from tests.support.usage.fixtures import (
    caller,
    caller_of_own_server,
    caller_of_shared_server,
    own_pool,
    shared_database_url,
    shared_pool,
    shared_server,
)

__all__ = [
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "own_pool",
    "shared_database_url",
    "shared_pool",
    "shared_server",
]


@pytest.fixture
def shell(caller: Caller, tmp_path: Path) -> Shell:
    """Commands of an organization of the test's own."""
    return Shell(caller, tmp_path / "home")
