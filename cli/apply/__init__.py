"""`tidemark apply` and `tidemark export`: alerts and others as files declare them."""
