"""Channels to a server: address, TLS, API key, and defaults that every call gets."""
