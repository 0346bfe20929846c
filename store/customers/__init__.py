"""The tree of customers."""
