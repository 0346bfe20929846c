"""The handlers of WebhookService, one module a resource."""
