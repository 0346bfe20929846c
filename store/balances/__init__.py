"""Balances and their ledger, drawdown, and wallets: the lock and the timer of each customer."""
