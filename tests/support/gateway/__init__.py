"""Helpers of the HTTP port."""
