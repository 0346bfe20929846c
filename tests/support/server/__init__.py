"""Helpers of server."""
