"""Webhook endpoints: settings, secrets, credentials, health, locks, and whether they are enabled."""
