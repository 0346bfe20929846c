"""Helpers of organizations."""
