"""Programs to copy from. They use the API as any caller does, and nothing of the service."""
