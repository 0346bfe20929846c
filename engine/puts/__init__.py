"""Puts of customers, subscriptions and limits: stored together, and evaluated after their commit."""
