"""Helpers of evaluator."""
