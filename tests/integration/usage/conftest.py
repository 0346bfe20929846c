"""Fixtures of the usage tests: a server, a caller of it, and its backfills held back."""

import pytest

from tests.support.usage.fixtures import caller, shared_database_url
from tests.support.usage.held_backfills import held_backfills

__all__ = ["caller", "held_backfills", "shared_database_url"]

pytest.register_assert_rewrite("tests.support.usage.comparison")
