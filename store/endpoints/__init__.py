"""Webhook endpoints: rows, secrets, credentials, and the switch between enabled and disabled."""
