"""The client library against scripted servers."""
