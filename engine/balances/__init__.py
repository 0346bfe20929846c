"""Drawdown: usage takes its cost from balances."""
