"""Ingest: usage is queued by organization, and stored, counted and evaluated in one commit."""
