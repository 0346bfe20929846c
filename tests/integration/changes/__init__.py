"""Changes of one organization in common transactions."""
