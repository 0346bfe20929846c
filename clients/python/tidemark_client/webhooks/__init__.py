"""Webhooks: whether a request comes from Tidemark, and what it reports."""
