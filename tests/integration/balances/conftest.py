"""Fixtures of the tests of balances: the caller of a server on a clock that stands still, as in the usage tests."""

from tests.integration.usage.conftest import caller, shared_database_url

__all__ = ["caller", "shared_database_url"]
