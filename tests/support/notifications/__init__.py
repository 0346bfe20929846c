"""Helpers of notifications."""
