"""Recharge policies, their evaluation, and the recharges that they request."""
