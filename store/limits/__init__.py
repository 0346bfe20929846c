"""Limits, and which of them is in effect for a customer."""
