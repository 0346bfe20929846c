"""The handlers of WebhookService, one module for each resource."""
