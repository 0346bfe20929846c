"""Helpers of semantics."""
