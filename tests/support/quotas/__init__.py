"""Quotas in tests."""
