"""The notifier: its own process that turns outbox rows into signed webhooks, and keeps trying."""
