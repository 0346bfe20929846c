"""Enforcement: usage is checked, reserved and settled against limits and balances, durably and many at once."""
