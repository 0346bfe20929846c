"""Quotas of organizations: their limits, their answers, and what several servers make of them."""
