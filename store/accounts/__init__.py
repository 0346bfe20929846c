"""Customers, subscriptions, metrics, plans and invoices."""
