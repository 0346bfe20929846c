"""Helpers of postgres."""
