"""WebhookService over a real channel."""
