"""Organizations, their keys, and the answers that idempotent requests get again."""
