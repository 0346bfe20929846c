"""Helpers of cli."""
