"""The notification streams of watchers."""
