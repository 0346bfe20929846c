"""Helpers for tests of metrics and of the monitoring port."""
