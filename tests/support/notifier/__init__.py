"""Helpers of notifier."""
