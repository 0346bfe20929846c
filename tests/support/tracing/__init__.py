"""Helpers of tests of traces."""
