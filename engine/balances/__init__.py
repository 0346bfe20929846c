"""Usage that draws on balances."""
