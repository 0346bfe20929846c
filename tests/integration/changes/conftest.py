"""Fixtures: the caller of usage tests, and the changes that wait at its server."""

from tests.support.usage.fixtures import caller, shared_database_url

__all__ = ["caller", "shared_database_url"]
