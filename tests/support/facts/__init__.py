"""Helpers of facts."""
