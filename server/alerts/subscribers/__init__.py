"""The streams of the subscribers of notifications."""
