"""Limits that stop usage before it happens: reservations around work, and checks that are answered from a cache."""
