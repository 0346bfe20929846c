"""Fixtures of the tests of clients: a real server in this process, and an organization of each test's own."""

import pytest

from tests.support.usage.fixtures import (
    shared_database_url,
    shared_pool,
    shared_server,
)

__all__ = ["shared_database_url", "shared_pool", "shared_server"]


@pytest.fixture(scope="module")
def native_decoder() -> bool:
    """Whether servers decode usage natively, where that is compiled."""
    return True
