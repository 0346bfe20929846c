"""Tests of store/identity: API keys, organizations, idempotent answers."""
