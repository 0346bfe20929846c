"""Tests of usage: ingest and evaluation, over real channels and with a real database."""
