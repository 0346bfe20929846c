"""What every call has: identity, validation, errors, pages, its share of the server, its end."""
