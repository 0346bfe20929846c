"""Balances: what usage draws from them, what time does to them, and what alerts say of them."""
