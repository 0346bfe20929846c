"""Tests of the hot path: usage in, over real channels and a real database, and what it crosses out."""
