"""Helpers of webhooks."""
