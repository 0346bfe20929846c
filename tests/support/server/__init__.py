"""Helpers of servers and their clients."""
