"""Contexts: several servers with their credentials, by name, in a file of the user."""
