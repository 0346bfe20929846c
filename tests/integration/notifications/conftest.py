"""Fixtures: a server and a caller of it, as the tests of the hot path have them."""

from tests.support.usage.fixtures import caller, shared_database_url

__all__ = ["caller", "shared_database_url"]
