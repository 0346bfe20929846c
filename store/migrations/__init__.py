"""The schema's history, forward only, each step safe beside the version before it."""
