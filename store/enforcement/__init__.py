"""Storage of enforcement: meters, the minutes of rolling windows, and reservations."""
