"""Enforcement in a gateway; see docs/enforcement.md."""
