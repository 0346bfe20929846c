"""Helpers of processes."""
