"""The command `tidemark check`: limits and balances, for people who debug them."""
