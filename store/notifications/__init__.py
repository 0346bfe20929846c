"""The feed and history of notifications, and operator events."""
