"""The commands `tidemark check` and `tidemark reservations …`: limits and reservations, for people who debug them."""
