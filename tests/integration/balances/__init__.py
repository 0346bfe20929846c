"""Tests of balances: drawdown, timers, and alerts on balances."""
