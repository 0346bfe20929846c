"""Helpers of balances."""
