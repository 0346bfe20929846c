"""Helpers of the tests of the audit log."""
