"""Explanations: why an alert has notified about a customer, or has not, by the code that evaluates it."""
