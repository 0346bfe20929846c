"""Changes of one organization that wait at the same time are made together, in one exclusive transaction."""
