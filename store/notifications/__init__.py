"""Notifications: their writing, the feed and the history; operator events."""
