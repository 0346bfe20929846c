"""Helpers of alerts."""
