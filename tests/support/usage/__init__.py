"""Helpers of usage."""
