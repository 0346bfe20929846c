"""Tests of the erasure of customers."""
