"""Fixtures of the engine's tests."""

from tests.support.usage.pipelines import commits

__all__ = ["commits"]
