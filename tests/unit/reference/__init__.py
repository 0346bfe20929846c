"""Tests of tests/reference."""
