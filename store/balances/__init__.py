"""Balances: the ledger, drawdown, and the wallets that hold what a customer has."""
