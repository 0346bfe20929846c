"""The rules of an organization: what an event or a fact moves, and which alerts watch it."""
