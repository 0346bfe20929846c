"""Notifications as they are committed, each handed over once, from one stream after another."""
