"""LimitService: decisions about usage before it happens, and reservations."""
